"""What holds a LoRA besides a safetensors file can be chosen and draws the same: pickles, and PEFT's folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import graphs
import lora_files
from host_harness.host import ComfyHost

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def kinds(comfy: ComfyHost) -> list[str]:
    """One LoRA in seven kinds of files; the first is the ordinary one."""
    tensors = lora_files.peft(lora_files.factors("loom_demo", seed=5, modules=lora_files.ATTENTION, size=0.5))
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    folder: Path = comfy.loras / "kinds"
    lora_files.save(folder / "plain.safetensors", tensors)
    lora_files.save(folder / "trained" / "adapter_model.safetensors", tensors)
    (folder / "trained" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 4}))
    lora_files.save(folder / "short.sft", tensors)
    torch.save(tensors, folder / "zipped.pt")
    torch.save(tensors, folder / "zipped.pth")
    torch.save({"state_dict": tensors, "epoch": 3}, folder / "wrapped.ckpt")
    torch.save(tensors, folder / "elder.bin", _use_new_zipfile_serialization=False)
    plain = ("plain.safetensors", "trained/adapter_model.safetensors", "short.sft")
    pickled = ("zipped.pt", "zipped.pth", "wrapped.ckpt", "elder.bin")
    return [f"kinds/{name}" for name in plain + pickled]


def test_all_kinds_draw_the_same(comfy: ComfyHost, kinds: list[str]) -> None:
    def draw(graph: graphs.Graph) -> NDArray[np.int64]:
        (pixels,) = comfy.images(comfy.queue(graphs.demo() | graph), "picture")
        return pixels.astype(int)

    plain, *others = (draw(graphs.loaded(name)) for name in kinds)

    assert np.abs(plain - draw(graphs.picture())).max() > 8
    for name, pixels in zip(kinds[1:], others, strict=True):
        assert np.array_equal(plain, pixels), name
