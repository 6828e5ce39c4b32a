"""A full-size SD 1.5 whose large weights are scaled fp8, through the host's own loader: live and merged.

What a merge in another dtype takes out of fp8 is compared number by number in lora_core/merge/test_quantised.py, and
such a file is one of test_sd15.py's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import graphs
import lora_files
from host_harness.host import ComfyHost
from lora_core.io import Entry, TensorFile, TensorRef, stream_safetensors
from lora_core.merge import open_checkpoint
from quantised_weights import quantised

PATIENCE = 900  # as in test_sd15.py
pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(PATIENCE)]
PREFIX = "model.diffusion_model."
ROWS = json.dumps([{"lora": "fp8_a.safetensors", "model": 0.8, "clip": 0.5}])


def scaled_fp8(source: Path, target: Path) -> int:
    """The old way: ``scale_weight`` beside each linear layer of the UNet, and the marker. Returns their number."""
    file = TensorFile(source)
    entries: list[Entry] = []
    count = 0
    for key, ref in file.items():
        if not (key.startswith(PREFIX) and key.endswith(".weight") and len(ref.shape) == 2):
            entries.append(Entry(key, ref.dtype, ref.shape, ref))
            continue
        count += 1
        for role, name, dtype, shape in (
            ("weight", key, "F8_E4M3", ref.shape),
            ("scale", key.removesuffix("weight") + "scale_weight", "F32", ()),
        ):
            entries.append(Entry(name, dtype, shape, part(ref, role)))
    entries.append(Entry(f"{PREFIX}scaled_fp8", "F8_E4M3", (0,), lambda: torch.empty(0).to(torch.float8_e4m3fn)))
    stream_safetensors(target, sorted(entries, key=lambda entry: {"F32": 0, "F8_E4M3": 2}.get(entry.dtype, 1)))
    return count


def part(ref: TensorRef, role: str) -> Callable[[], torch.Tensor]:
    return lambda: quantised("float8_e4m3fn", ref.load())[role]


@pytest.fixture(scope="module")
def base(comfy: ComfyHost, sd15_checkpoint: Path) -> graphs.Graph:
    parts = lora_files.factors("sd15", seed=5, rank=8, size=0.5)
    lora_files.save(comfy.loras / "fp8_a.safetensors", lora_files.kohya(parts))
    assert scaled_fp8(sd15_checkpoint, comfy.checkpoints / "sd15_fp8.safetensors") == 184
    return graphs.checkpoint("sd15_fp8.safetensors")


def draw(comfy: ComfyHost, *graph: graphs.Graph) -> NDArray[np.int64]:
    whole: graphs.Graph = {}
    for some in graph:
        whole |= some
    (pixels,) = comfy.images(comfy.queue(whole, timeout=PATIENCE), "picture")
    return pixels.astype(np.int64)


MERGE: graphs.Graph = {
    "stack": graphs.node("LoomLoraStack", rows=ROWS),
    "merge": graphs.node(
        "LoomMergeToCheckpoint", lora_stack=["stack", 2], filename="fp8_same", dtype="same",
        ckpt_name="sd15_fp8.safetensors",
    ),
}  # fmt: skip


def test_live_and_merged_draw_alike(comfy: ComfyHost, base: graphs.Graph) -> None:
    """fp8 rounds live and merged weights each in its way; the LoRA's effect is larger than that."""
    plain = draw(comfy, base, graphs.picture())
    result = comfy.queue(base | graphs.stacked(ROWS) | graphs.shown(["lora", 4]), timeout=PATIENCE)
    live = comfy.images(result, "picture")[0].astype(np.int64)
    merged = draw(comfy, MERGE, graphs.checkpoint(["merge", 0]), graphs.picture())

    (report,) = json.loads(result.outputs["shown"]["text"][0])
    assert set(report["quantised"]) == {"float8_e4m3fn"}
    assert len(report["rounding"]["layers"]) == report["quantised"]["float8_e4m3fn"] > 100
    assert report["rounding"]["of_weight"]["mean"] == 0.037
    effect = np.abs(live - plain).mean()
    assert effect > 10  # of 255
    # Live weights are rounded at random, merged ones to nearest.
    assert np.abs(merged - live).mean() < 0.1 * effect
    assert len(open_checkpoint(comfy.checkpoints / "fp8_same_00001_.safetensors").quantised.layers) == 184
    for name in ("fp8_same_00001_", "sd15_fp8"):
        (comfy.checkpoints / f"{name}.safetensors").unlink()
