"""Convert LoRA on the demo model: what is written draws the same picture, through our loader and through the host's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import graphs
import lora_files
from host_harness.host import ComfyHost

pytestmark = pytest.mark.host
FORMATS = ["kohya", "diffusers", "comfy", "peft"]


@pytest.fixture(scope="module")
def loras(comfy: ComfyHost) -> ComfyHost:
    """PEFT's names with two ranks, and DoRA in kohya's."""
    parts = lora_files.factors("loom_demo", seed=31, size=0.3, components=("denoiser",), modules=lora_files.ATTENTION)
    more = lora_files.factors("loom_demo", seed=32, size=0.3, components=("denoiser",), modules="conv1$", rank=6)
    tensors = {key: tensor.contiguous() for key, tensor in lora_files.peft(parts + more).items()}
    lora_files.save(comfy.loras / "convert" / "mixed.safetensors", tensors)
    lora_files.save(comfy.loras / "convert" / "dora.safetensors", lora_files.with_dora(lora_files.kohya(parts, 2.0), 3))
    return comfy


def drawn(comfy: ComfyHost, graph: graphs.Graph) -> NDArray[np.int64]:
    (pixels,) = comfy.images(comfy.queue(graphs.demo() | graph), "picture")
    return pixels.astype(int)


def converted(comfy: ComfyHost, name: str, format: str, dtype: str = "same") -> str:
    """The name that the node gives back."""
    graph = {
        "convert": graphs.node(
            "LoomConvertLora", lora_name=f"convert/{name}", format=format, dtype=dtype, filename=f"made/{name}"
        )
    }
    text = comfy.queue(graph).outputs["convert"]["text"][0]
    new, report = text.split("\n", 1)
    (described,) = json.loads(report)
    assert described["tensors"]["unmatched"] == []
    assert described["format"] == described["converted"]["format"] == format
    assert (comfy.loras / new).is_file()
    return new


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["mixed", "dora"])
def test_the_new_file_draws_what_the_old_one_draws(loras: ComfyHost, name: str, format: str) -> None:
    new = converted(loras, f"{name}.safetensors", format)
    old = drawn(loras, graphs.loaded(f"convert/{name}.safetensors"))

    # one rounding of the factors to fp16 more, where they take the scale
    assert np.abs(drawn(loras, graphs.loaded(new)) - old).max() <= 2
    assert np.abs(old - drawn(loras, graphs.picture())).max() > 8


# It does not know PEFT's suffixes under diffusers' names of a UNet.
@pytest.mark.parametrize("format", ["kohya", "comfy"])
@pytest.mark.parametrize("name", ["mixed", "dora"])
def test_the_hosts_own_loader_draws_the_same_from_it(loras: ComfyHost, name: str, format: str) -> None:
    new = converted(loras, f"{name}.safetensors", format)
    old = f"convert/{name}.safetensors"
    # DoRA at such magnitudes is rounded by the host in other places than by us: its own picture of the old file counts.
    wanted = drawn(loras, graphs.chained((old, 1.0, 1.0)) if name == "dora" else graphs.loaded(old))

    assert np.abs(drawn(loras, graphs.chained((new, 1.0, 1.0))) - wanted).max() <= 2
    assert np.abs(wanted - drawn(loras, graphs.picture())).max() > 8


def test_names_are_counted_up_and_a_name_outside_is_refused(loras: ComfyHost) -> None:
    first, second = (converted(loras, "mixed.safetensors", "kohya", dtype) for dtype in ("fp32", "bf16"))

    assert Path(first).parent == Path(second).parent == Path("made")
    assert first != second
