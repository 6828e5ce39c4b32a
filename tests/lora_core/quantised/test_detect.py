"""Which weights of a file are quantised, told from headers of real files and from what goes wrong in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_core.errors import CorruptFileError
from lora_core.io import TensorDict
from lora_core.io.dtypes import TORCH_DTYPES
from lora_core.quantised import METADATA_KEY, Quantised, find_quantised
from quantised_weights import NAMES, quantised, replace_weight, said
from small_models import random


def find(tensors: dict[str, torch.Tensor], **metadata: str) -> Quantised:
    return find_quantised(TensorDict(tensors), metadata, "base.safetensors")


def layer(name: str, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    """``blocks.0.weight`` in a scheme, without a word about it."""
    tensors: dict[str, torch.Tensor] = {}
    replace_weight(tensors, "blocks.0.weight", quantised(name, random((32, 256), 1)))
    return tensors | {f"blocks.0.{key}": tensor for key, tensor in more.items()}


def real(keys: Path, name: str) -> Quantised:
    """An inventory of a real file, its ``comfy_quant`` filled with what such a file says."""
    inventory: dict[str, Any] = json.loads((keys / "base" / f"{name}.json").read_text())
    tensors: dict[str, torch.Tensor] = {}
    for key, shape in inventory["tensors"].items():
        kind = TORCH_DTYPES[inventory["dtypes"][key]]
        text = json.dumps({"format": "float8_e4m3fn"}).ljust(shape[0] if shape else 0).encode()
        tensors[key] = torch.empty(shape, dtype=kind, device="meta")
        if key.endswith("comfy_quant"):
            tensors[key] = torch.tensor(list(text), dtype=kind)
    return find(tensors)


@pytest.mark.parametrize(
    ("name", "count", "markers"),
    [
        ("flux-dev__scaled-fp8_subset", 23, 1),  # scale_weight, scale_input, and biases that are fp8 without a scale
        ("z-image__scaled-fp8_subset", 23, 1),  # scales of shape [1]
        ("flux2-dev__fp8mixed_subset", 6, 0),  # some layers only, and nothing says which
        ("flux2-klein-4b__scaled-fp8_subset", 10, 0),
        ("anima__scaled-fp8_subset", 10, 0),  # comfy_quant
    ],
)
def test_real_files(keys: Path, name: str, count: int, markers: int) -> None:
    found = real(keys, name)

    assert len(found.layers) == count
    assert len(found.markers) == markers
    assert {one.format for one in found.layers.values()} == {"float8_e4m3fn"}
    assert all(one.scheme is not None and set(one.keys) == {"weight", "scale"} for one in found.layers.values())
    noted = [key for one in found.layers.values() for key in one.notes]
    assert all(key.rpartition(".")[2] in ("comfy_quant", "input_scale", "scale_input") for key in noted)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "mxfp8", "nvfp4", "int8_tensorwise"])
def test_dtype_and_scales_say_enough(name: str) -> None:
    found = find(layer(name))

    assert {key: (one.format, one.shape) for key, one in found.layers.items()} == {"blocks.0.weight": (name, (32, 256))}


def test_a_file_may_say_it_per_layer_or_in_its_metadata() -> None:
    parts = layer("convrot_w4a4")
    with_tensor = find(parts | {"blocks.0.comfy_quant": said("convrot_w4a4", convrot_groupsize=64)})
    layers = {"layers": {"blocks.0": {"format": "convrot_w4a4", "convrot_groupsize": 64}}}
    with_metadata = find(parts, **{METADATA_KEY: json.dumps(layers)})

    for found in (with_tensor, with_metadata):
        one = found.layers["blocks.0.weight"]
        assert (one.format, one.shape, one.options["convrot_groupsize"]) == ("convrot_w4a4", (32, 256), 64)
    assert with_tensor.layers["blocks.0.weight"].notes == ("blocks.0.comfy_quant",)


def test_plain_weights_are_not_quantised() -> None:
    """fp8 without a scale is a number type like any other, whatever the scale of the layer's input."""
    tensors = {
        "a.weight": torch.zeros(4, 4),
        "b.weight": torch.zeros(4, 4, dtype=torch.float8_e4m3fn),
        "b.scale_input": torch.ones(()),
        "position_ids": torch.zeros(1, 77, dtype=torch.int64),
        "norm.scale": torch.ones(4),
    }
    assert find(tensors) == Quantised()


@pytest.mark.parametrize(
    ("tensors", "format"),
    [
        ({"weight": torch.zeros(8, 1, dtype=torch.uint8), "weight.absmax": torch.zeros(1)}, "bitsandbytes 4 bit"),
        (
            {
                "weight": torch.zeros(8, 1, dtype=torch.uint8),
                "weight.quant_map": torch.zeros(16),
                "weight.quant_state.bitsandbytes__nf4": torch.zeros(9, dtype=torch.uint8),
            },
            "bitsandbytes 4 bit",
        ),
        ({"weight": torch.zeros(8, 8, dtype=torch.int8), "SCB": torch.zeros(8)}, "bitsandbytes int8"),
        ({"weight": torch.zeros(8, 8, dtype=torch.int8)}, "I8 without scales"),
        (
            {"weight": torch.zeros(256, 256).to(torch.float8_e4m3fn), "weight_scale_inv": torch.zeros(2, 2)},
            "fp8 in square blocks",
        ),
        (
            {"weight": torch.zeros(8, 8).to(torch.float8_e4m3fn), "weight_scale": torch.zeros(3)},
            "float8_e4m3fn (scales of shape [3] for a weight of [8, 8], expected one or one per row)",
        ),
        (
            {"weight": torch.zeros(8, 8), "comfy_quant": said("nvfp4")},
            "nvfp4 (lacks scale, scale_2)",
        ),
        (
            {"weight": torch.zeros(8, 8), "weight_scale": torch.ones(()), "comfy_quant": said("float8_e4m3fn")},
            "float8_e4m3fn (its weight is F32)",
        ),
        ({"weight": torch.zeros(8, 8, dtype=torch.int8), "comfy_quant": said("svdquant_w4a4")}, "svdquant_w4a4"),
        (
            {NAMES[role]: part for role, part in quantised("nvfp4", torch.ones(16, 32)).items()}
            | {"pre_quant_scale": torch.ones(5)},
            "nvfp4 (a factor on its input of shape [5])",
        ),
    ],
)
def test_what_nothing_here_computes_with_has_a_name(tensors: dict[str, torch.Tensor], format: str) -> None:
    found = find({f"blocks.0.{key}": tensor for key, tensor in tensors.items()})

    assert found.layers["blocks.0.weight"].scheme is None
    assert found.layers["blocks.0.weight"].format == format


def test_what_a_file_says_must_be_readable() -> None:
    with pytest.raises(CorruptFileError, match=r"blocks\.0\.comfy_quant is F32 \[64\], expected bytes of JSON"):
        find(layer("nvfp4", comfy_quant=torch.zeros(64)))
    with pytest.raises(CorruptFileError, match=r"base\.safetensors: blocks\.0\.comfy_quant: not JSON"):
        find(layer("nvfp4", comfy_quant=torch.zeros(64, dtype=torch.uint8)))
    with pytest.raises(CorruptFileError, match=f"base\\.safetensors: {METADATA_KEY}: not JSON"):
        find(layer("nvfp4"), **{METADATA_KEY: "{"})
