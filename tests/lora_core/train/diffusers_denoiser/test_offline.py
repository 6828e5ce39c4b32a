"""Where everything is local nothing is asked of the network; what is not is downloaded once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import tiny
from hub_cache import cached, serving

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
# Downloads, then loads the same again without the hub.
DOWNLOAD = """
import huggingface_hub.constants
import tiny
from lora_core.train.config import ModelSection
from lora_core.train.diffusers_denoiser import DiffusersDenoiser

section = ModelSection(base="someone/tiny", dtype="bf16")
first = DiffusersDenoiser.load(section, architecture=tiny.TINY_SD1).text_fingerprint
huggingface_hub.constants.HF_HUB_OFFLINE = True
print(first == DiffusersDenoiser.load(section, architecture=tiny.TINY_SD1).text_fingerprint)
"""
ROOT = Path(__file__).parents[4]


def run(code: str, *arguments: object, **variables: str) -> str:
    """What a fresh process prints."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_network_is_asked(tiny_sd1: Path, tmp_path: Path):
    cached(tmp_path / "hub", "someone/tiny", {path.name: path for path in tiny_sd1.iterdir()})
    file = tiny.as_single_file(tiny_sd1, tiny.TINY_SD1, tmp_path / "base.safetensors")

    printed = run(CODE, tiny_sd1, file, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="0")

    assert printed == "asked the network 0 times\n"


def test_what_is_not_there_is_downloaded_once(tiny_sd1: Path, tmp_path: Path):
    repository = shutil.copytree(tiny_sd1, tmp_path / "repository")
    weights = repository / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    (repository / "README.md").write_text("of no use")

    with serving(repository) as address:
        printed = run(DOWNLOAD, HF_HOME=str(tmp_path), HF_ENDPOINT=address, HF_HUB_DISABLE_XET="1", HF_HUB_OFFLINE="0")

    assert printed == "True\n"
    files = {path.name for path in (tmp_path / "hub").rglob("snapshots/*/unet/*")}
    assert files == {"config.json", "diffusion_pytorch_model.fp16.safetensors"}
    assert not list((tmp_path / "hub").rglob("README.md"))
