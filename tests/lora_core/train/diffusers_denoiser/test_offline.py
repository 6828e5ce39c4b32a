"""Where everything is local nothing is asked of the network, whether or not the hub is told that there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from hub_cache import cached

# Runs in a fresh process: libraries read their settings when they are imported.
CODE = """
import socket, sys

asked = []

def refuse(*arguments, **more):
    asked.append(arguments)
    raise OSError("no network in this test")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse

import torch
import tiny
from lora_core.train.config import ModelSection
from lora_core.train.diffusers_denoiser import DiffusersDenoiser

folder, file = sys.argv[1:]
for settings in ({"base": folder}, {"base": "someone/tiny"}, {"base": file, "pipeline": folder}):
    denoiser = DiffusersDenoiser.load(ModelSection(**settings), architecture=tiny.TINY_SD1)
    denoiser.encode_pictures(torch.zeros(1, 3, 64, 64))
    denoiser.sample("an apple", "", seed=1, steps=1, guidance=2.0, width=64, height=64)
print(f"asked the network {len(asked)} times")
"""
ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("offline", ["0", "1"])
def test_no_network_is_asked(offline: str, tiny_sd1: Path, tmp_path: Path):
    cached(tmp_path / "hub", "someone/tiny", {path.name: path for path in tiny_sd1.iterdir()})
    file = tiny.as_single_file(tiny_sd1, tiny.TINY_SD1, tmp_path / "base.safetensors")
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": offline,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
    }

    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tiny_sd1), str(file)], env=environment, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "asked the network 0 times\n"
