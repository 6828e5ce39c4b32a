"""A full-size SD 1.5 through the host's own loaders, and ours on it; random weights, real shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import graphs
import lora_files
from host_harness.host import ComfyHost

# Seconds each on two free cores; a busy machine may take minutes to patch and to draw.
PATIENCE = 900
pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(PATIENCE)]
LORAS = (("sd_a.safetensors", 0.8, 0.5), ("sd_b.safetensors", -0.5, -0.5), ("sd_c.safetensors", 0.6, 0.0))
ROWS = json.dumps([{"lora": name, "model": model, "clip": clip} for name, model, clip in LORAS])


@pytest.fixture(scope="module")
def base(comfy: ComfyHost, sd15_checkpoint: Path) -> graphs.Graph:
    for seed, (name, _, _) in enumerate(LORAS):
        parts = lora_files.factors("sd15", seed=seed, rank=8, size=0.2)
        lora_files.save(comfy.loras / name, lora_files.kohya(parts, 4.0 if seed else None))
    return graphs.checkpoint(comfy.add_model(sd15_checkpoint, "checkpoints"))


def draw(comfy: ComfyHost, *graph: graphs.Graph) -> NDArray[np.int64]:
    whole: graphs.Graph = {}
    for part in graph:
        whole |= part
    (pixels,) = comfy.images(comfy.queue(whole, timeout=PATIENCE), "picture")
    return pixels.astype(np.int64)


@pytest.fixture(scope="module")
def live(comfy: ComfyHost, base: graphs.Graph) -> NDArray[np.int64]:
    """The stack of three."""
    return draw(comfy, base, graphs.stacked(ROWS))


@pytest.fixture(scope="module")
def one(comfy: ComfyHost, base: graphs.Graph) -> NDArray[np.int64]:
    return draw(comfy, base, graphs.loaded(*LORAS[0]))


def test_our_loader_draws_what_the_hosts_loader_draws(comfy: ComfyHost, base: graphs.Graph, one: NDArray[np.int64]):
    assert np.abs(one - draw(comfy, base, graphs.chained(LORAS[0]))).max() <= 1


def test_a_stack_of_three_draws_what_three_chained_loaders_draw(
    comfy: ComfyHost, base: graphs.Graph, one: NDArray[np.int64], live: NDArray[np.int64]
) -> None:
    assert np.abs(live - draw(comfy, base, graphs.chained(*LORAS))).max() <= 1
    assert np.abs(live - one).mean() > 2


def test_the_merged_checkpoint_in_the_hosts_loader_draws_what_the_live_stack_draws(
    comfy: ComfyHost, base: graphs.Graph, one: NDArray[np.int64], live: NDArray[np.int64]
) -> None:
    merge = {
        "stack": graphs.node("LoomLoraStack", rows=ROWS),
        "merge": graphs.node(
            "LoomMergeToCheckpoint", lora_stack=["stack", 2], filename="sd_merged", dtype="same",
            ckpt_name=base["base"]["inputs"]["ckpt_name"],
        ),
    }  # fmt: skip
    merged = draw(comfy, merge, graphs.checkpoint(["merge", 0]), graphs.picture())
    # The file's weights are rounded to fp16, the live ones are float32 on this device.
    assert np.abs(merged - live).mean() < 0.1 * np.abs(one - live).mean()
    assert np.abs(merged - live).max() <= 2
    (comfy.checkpoints / "sd_merged_00001_.safetensors").unlink()
