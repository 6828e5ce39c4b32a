"""MXFP8: e4m3 numbers in blocks of 32 along a row, each with a power of two as its scale (e8m0).

``W[r, c] = q[r, c] * 2^(e[r, c // 32] - 127)``, and 0 where e is 0. Rows and columns are padded to multiples of 32;
scales are bytes in the order of ``swizzle``. Sources: OCP Microscaling Formats specification 1.0; ComfyUI's
``mxfp8`` layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..patching import rounded
from ..types import Shape
from . import scales, swizzle
from .base import Options, Parts, Scheme, blocks, same

GROUP = 32
BIAS = 127
LARGEST = 448.0


def stored(shape: Shape) -> Shape:
    """Padded to multiples of 32."""
    return tuple(-(-size // GROUP) * GROUP for size in shape)


def fault(weight: Shape, shapes: Mapping[str, Shape], options: Options) -> str:
    """One scale per block of a matrix, padded."""
    if len(weight) != 2 or weight[1] % GROUP:
        return f"a weight of {list(weight)}, expected a matrix of whole blocks of {GROUP}"
    room = swizzle.padded(weight[0], weight[1] // GROUP)
    if prod(shapes["scale"]) != prod(room):
        return f"scales of shape {list(shapes['scale'])}, expected {list(room)}"
    return ""


def dequantise(parts: Parts, options: Options) -> torch.Tensor:
    """Each block times its scale, in float32."""
    packed = parts["weight"]
    scale = _scales(parts)
    return (packed.float().view(len(packed), -1, GROUP) * scale[..., None]).view(packed.shape)


def requantise(weight: torch.Tensor, parts: Parts, options: Options) -> dict[str, torch.Tensor]:
    """Each block with the scale that it had, or the next power of two by which it fits."""
    grouped = weight.view(len(weight), -1, GROUP)
    scale = _powers(scales.roomier(_scales(parts), grouped.abs().amax(dim=-1), LARGEST))
    packed = torch.empty(weight.shape, dtype=parts["weight"].dtype, device=weight.device)
    for rows in blocks(weight):
        packed[rows] = rounded(grouped[rows] / scale[rows, :, None], packed.dtype).view(-1, weight.shape[1])
    exponents = (torch.log2(scale) + BIAS).to(torch.uint8)
    return {"weight": packed, "scale": swizzle.swizzled(exponents)}


def _powers(scale: torch.Tensor) -> torch.Tensor:
    """The next power of two that e8m0 can write; exact ones stay."""
    return torch.exp2(torch.log2(scale).ceil().clamp(1 - BIAS, 254 - BIAS))


def _scales(parts: Parts) -> torch.Tensor:
    """float32 (rows, blocks); a byte of 0 is 0."""
    rows, columns = parts["weight"].shape
    exponents = swizzle.unswizzled(parts["scale"].view(torch.uint8), rows, columns // GROUP).float()
    return torch.where(exponents > 0, torch.exp2(exponents - BIAS), torch.zeros_like(exponents))


SCHEME = Scheme(
    "mxfp8", "MXFP8", frozenset({"F8_E4M3"}), frozenset({"scale"}), stored, same, fault, dequantise, requantise
)
