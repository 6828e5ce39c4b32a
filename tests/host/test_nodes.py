"""The nodes on the demo model: they load files as the host does, stack them, and say what they did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import graphs
import lora_files
from host_harness.host import ComfyHost
from lora_core.types import DENOISER

pytestmark = pytest.mark.host
Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def loras(comfy: ComfyHost) -> Iterator[ComfyHost]:
    """Three LoRAs for the demo model as kohya writes them, one of them in a subfolder, one with a convolution."""
    for seed, (name, modules, alpha) in enumerate(
        (
            ("a.safetensors", lora_files.TRANSFORMERS, 2.0),
            ("sub/b.safetensors", lora_files.TRANSFORMERS, None),
            ("c.safetensors", r"conv|attn", 4.0),
        )
    ):
        parts = lora_files.factors("loom_demo", seed=seed, modules=modules, size=0.15)
        lora_files.save(comfy.loras / name, lora_files.kohya(parts, alpha))
    yield comfy


def draw(comfy: ComfyHost, *graph: graphs.Graph) -> Picture:
    whole = graphs.demo()
    for part in graph:
        whole |= part
    (pixels,) = comfy.images(comfy.queue(whole), "picture")
    return pixels


def difference(one: Picture, other: Picture) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def report(comfy: ComfyHost, graph: graphs.Graph, output: int = 4) -> list[dict[str, Any]]:
    result = comfy.queue(graphs.demo() | graph | graphs.shown(["lora", output]))
    return json.loads(result.outputs["shown"]["text"][0])


def test_the_loader_draws_what_the_hosts_own_loader_draws(loras: ComfyHost) -> None:
    base = draw(loras, graphs.picture())
    for name in ("a.safetensors", "sub/b.safetensors", "c.safetensors"):
        ours = draw(loras, graphs.loaded(name, 0.8, 0.6))
        cores = draw(loras, graphs.chained((name, 0.8, 0.6)))
        assert difference(ours, cores) <= 1, name
        assert difference(ours, base) > 8, f"{name} changed nothing"
