"""Save LoRA: what is written draws what the LORA_MODEL drew, of our loader and of the host's own training node."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import graphs
import lora_files
from host_harness.host import ComfyHost
from lora_core.architectures import ARCHITECTURES
from lora_core.io import TensorFile

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def ink(comfy: ComfyHost) -> ComfyHost:
    parts = lora_files.factors("loom_demo", seed=41, size=0.3, components=("denoiser",), modules=lora_files.ATTENTION)
    tensors = {key: tensor.contiguous() for key, tensor in lora_files.kohya(parts, 2.0).items()}
    lora_files.save(comfy.loras / "save" / "ink.safetensors", tensors)
    return comfy


def drawn(comfy: ComfyHost, graph: graphs.Graph) -> NDArray[np.int64]:
    (pixels,) = comfy.images(comfy.queue(graphs.demo() | graph), "picture")
    return pixels.astype(int)


def saved(comfy: ComfyHost, graph: graphs.Graph, source: list[Any], format: str, **inputs: Any) -> str:
    """The name that the node gives back, and shows."""
    save = graphs.node(
        "LoomSaveLora", lora_model=source, filename="saved/lora", format=format, **{"dtype": "same", **inputs}
    )
    text = comfy.queue(graphs.demo() | graph | {"save": save}).outputs["save"]["text"][0]
    assert "\n" not in text, text  # nothing was left out
    return text


@pytest.mark.parametrize("format", ["kohya", "diffusers", "comfy", "peft", "as it is"])
def test_a_loaded_lora_draws_the_same_from_the_new_file(ink: ComfyHost, format: str) -> None:
    lora = graphs.loaded("save/ink.safetensors")
    new = saved(ink, lora, ["lora", 2], format, metadata="title = Ink")
    old = drawn(ink, lora)

    assert Path(new).parts[0] == "saved"
    assert (ink.loras / new).is_file()
    assert np.abs(drawn(ink, graphs.loaded(new)) - old).max() <= 2
    assert np.abs(old - drawn(ink, graphs.picture())).max() > 8
    assert TensorFile(ink.loras / new).metadata["modelspec.title"] == "Ink"


def hosts_own() -> dict[str, torch.Tensor]:
    """As the host's TrainLoraNode names and shapes what it trained (the demo model is none that it can copy): factors
    of flat matrices, also for convolutions, and differences of norms and of all biases."""
    generator = torch.Generator().manual_seed(5)

    def small(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.02

    (denoiser, *_) = ARCHITECTURES.get("loom_demo").components
    tensors: dict[str, torch.Tensor] = {}
    for path, module in denoiser.modules.items():
        key, weight = f"diffusion_model.{path}", module.shapes["weight"]
        if len(weight) > 1:
            tensors[f"{key}.lora_up.weight"] = small(weight[0], 4)
            tensors[f"{key}.lora_down.weight"] = small(4, prod(weight[1:]))
            tensors[f"{key}.alpha"] = torch.tensor(4.0)
        else:
            tensors[f"{key}.diff"] = small(*weight)
        if "bias" in module.shapes:
            tensors[f"{key}.diff_b"] = small(*module.shapes["bias"])
    return tensors


def test_what_the_hosts_own_node_trains(ink: ComfyHost) -> None:
    lora_files.save(ink.loras / "save" / "own.safetensors", hosts_own())
    source = graphs.loaded("save/own.safetensors")
    names = {format: saved(ink, source, ["lora", 2], format) for format in ("as it is", "kohya", "comfy")}
    # What the host makes of its own file is the measure.
    wanted = drawn(ink, graphs.chained(("save/own.safetensors", 1.0, 1.0)))

    assert np.abs(wanted - drawn(ink, graphs.picture())).max() > 8
    for format, name in names.items():
        assert np.abs(drawn(ink, graphs.loaded(name)) - wanted).max() <= 2, format
        assert np.abs(drawn(ink, graphs.chained((name, 1.0, 1.0))) - wanted).max() <= 2, format
