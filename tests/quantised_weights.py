"""Weights of float32 as the parts that quantised files keep, and such files."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

from lora_core.io.dtypes import TORCH_DTYPES
from lora_core.quantised import SCHEMES, Layer, requantised
from lora_core.quantised.swizzle import padded

# Keys of the parts, behind the layer's name.
NAMES = {"weight": "weight", "scale": "weight_scale", "scale_2": "weight_scale_2", "smooth": "pre_quant_scale"}


def options_of(name: str) -> dict[str, object]:
    return {"format": name} | ({"convrot": True} if "convrot" in name else {})


def layer_of(name: str, shape: tuple[int, ...], **options: object) -> Layer:
    """A layer as ``find_quantised`` makes it."""
    return Layer(NAMES, (), name, SCHEMES.get(name), shape, {**options_of(name), **options})


def empty(name: str, shape: tuple[int, ...], rows: bool = False) -> dict[str, torch.Tensor]:
    """Parts of a weight that is zero, one scale per row on request."""
    scheme = SCHEMES.get(name)
    stored = scheme.stored(shape)
    (kind,) = scheme.dtypes
    parts = {"weight": torch.zeros(stored, dtype=torch.uint8).view(TORCH_DTYPES[kind])}
    blocks = {"mxfp8": stored[-1] // 32, "nvfp4": stored[-1] * 2 // 16}.get(name)
    if blocks:
        parts["scale"] = torch.zeros(padded(stored[0], blocks), dtype=torch.uint8)
    else:
        parts["scale"] = torch.zeros((shape[0], 1) if rows or name == "convrot_w4a4" else ())
    if name == "nvfp4":
        parts["scale"] = parts["scale"].view(torch.float8_e4m3fn)
        parts["scale_2"] = torch.zeros(())
    return parts


def quantised(name: str, weight: torch.Tensor, rows: bool = False, **options: object) -> dict[str, torch.Tensor]:
    """Parts of a weight, with scales made for it."""
    layer = layer_of(name, tuple(weight.shape), **options)
    parts = empty(name, tuple(weight.shape), rows)
    return {**parts, **requantised(layer, SCHEMES.get(name), weight.float(), parts)}


def said(name: str, **options: object) -> torch.Tensor:
    """What ``comfy_quant`` holds."""
    return torch.tensor(list(json.dumps({**options_of(name), **options}).encode()), dtype=torch.uint8)


def replace_weight(
    tensors: dict[str, torch.Tensor], key: str, parts: Mapping[str, torch.Tensor], names: Mapping[str, str] = NAMES
) -> None:
    """Put the parts in the place of the weight under this key."""
    layer = key.removesuffix("weight")
    tensors.update({f"{layer}{names[role]}": part for role, part in parts.items()})
