"""Integers of 8 and of 4 bits with a scale per weight or per row, as they are or rotated.

``W = q * scale``, q from -127 to 127 (``int8_tensorwise``), or from -7 to 7 with two numbers a byte, the first in the
lower half (``convrot_w4a4``). Rotated (``convrot``; always in 4 bits), ``q * scale`` is ``W @ H`` in groups of
columns, with ``H = kron(H4, H4, ...) / sqrt(size)`` symmetric and orthogonal, so that ``H`` undoes itself. Source:
ComfyUI's layouts of these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import isqrt

import torch

from ..types import Shape
from . import scales
from .base import Options, Parts, Scheme, blocks, same

LARGEST, LARGEST_4 = 127, 7
GROUP = 256


def _halved(shape: Shape) -> Shape:
    return (*shape[:-1], shape[-1] // 2)


def _doubled(shape: Shape) -> Shape:
    return (*shape[:-1], shape[-1] * 2)


def _fault(weight: Shape, shapes: Mapping[str, Shape], options: Options) -> str:
    size = _rotation(options)
    if size and (len(weight) != 2 or weight[-1] % size or not _is_power_of_4(size)):
        return f"a weight of {list(weight)} rotated in groups of {size}"
    return scales.fault(weight, shapes, options)


def _fault_4(weight: Shape, shapes: Mapping[str, Shape], options: Options) -> str:
    return _fault(_doubled(weight), shapes, {"convrot": True, **options})


def dequantise(parts: Parts, options: Options) -> torch.Tensor:
    """``q * scale`` in float32, turned back where it is rotated."""
    packed = parts["weight"]
    return _rotated(packed.float() * scales.broadcast(parts["scale"], packed), _rotation(options))


def requantise(weight: torch.Tensor, parts: Parts, options: Options) -> dict[str, torch.Tensor]:
    """``q = round(W / scale)`` with the scale as it was; where W would not fit, ``max |W| / 127``."""
    packed, scale = _rounded(_rotated(weight, _rotation(options)), parts["scale"], LARGEST)
    return {"weight": packed, "scale": scale}


def dequantise_4(parts: Parts, options: Options) -> torch.Tensor:
    """As ``dequantise``, after the halves of each byte were taken apart."""
    both = torch.stack((parts["weight"] << 4 >> 4, parts["weight"] >> 4), dim=-1).flatten(-2)
    return dequantise({**parts, "weight": both}, {"convrot": True, **options})


def requantise_4(weight: torch.Tensor, parts: Parts, options: Options) -> dict[str, torch.Tensor]:
    """As ``requantise``; numbers are of 4 bits, and two of them share a byte."""
    turned = _rotated(weight, _rotation({"convrot": True, **options}))
    packed, scale = _rounded(turned, parts["scale"], LARGEST_4)
    return {"weight": packed[..., 0::2] & 15 | packed[..., 1::2] << 4, "scale": scale}


def _rounded(weight: torch.Tensor, scale: torch.Tensor, largest: int) -> tuple[torch.Tensor, torch.Tensor]:
    kind = scale.dtype
    scale = scales.broadcast(scale, weight)
    peak = scales.peaks(weight, scale)
    # Half a step beyond the last number still rounds to it: as far from it as any number is from its own.
    fits = peak <= scale * (largest + 0.5)
    scale = torch.where(fits & (scale > 0), scale, scales.fresh(peak, largest)).to(kind).float()
    packed = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    for rows in blocks(weight):
        ratio = weight[rows] / (scale if scale.dim() == 0 else scale[rows])
        packed[rows] = ratio.round_().clamp_(-largest, largest).to(torch.int8)
    return packed, scale


def _rotation(options: Options) -> int:
    """Columns of a group that is rotated, 0 where nothing is."""
    size = options.get("convrot_groupsize", GROUP)
    return size if options.get("convrot") and isinstance(size, int) else 0


def _is_power_of_4(size: int) -> bool:
    return size >= 4 and isqrt(size) ** 2 == size and size & (size - 1) == 0


def _rotated(weight: torch.Tensor, size: int) -> torch.Tensor:
    if not size:
        return weight
    return (weight.view(len(weight), -1, size) @ _hadamard(size).to(weight.device)).view(weight.shape)


@lru_cache(maxsize=4)
def _hadamard(size: int) -> torch.Tensor:
    """float32 (size, size) for a power of 4."""
    four = 1.0 - 2.0 * torch.eye(4).flip(0)
    whole = torch.ones(1, 1)
    while len(whole) < size:
        whole = torch.kron(whole, four)
    return whole / size**0.5


INT8 = Scheme(
    name="int8_tensorwise",
    title="int8",
    dtypes=frozenset({"I8"}),
    scales=frozenset({"scale"}),
    stored=same,
    plain=same,
    fault=_fault,
    dequantise=dequantise,
    requantise=requantise,
)
INT4 = Scheme(
    name="convrot_w4a4",
    title="rotated int4",
    dtypes=frozenset({"I8"}),
    scales=frozenset({"scale"}),
    stored=_halved,
    plain=_doubled,
    fault=_fault_4,
    dequantise=dequantise_4,
    requantise=requantise_4,
)
SCHEMES = (INT8, INT4)
