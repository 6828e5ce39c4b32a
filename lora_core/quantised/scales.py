"""One number per weight, or one per row, that stored numbers are multiplied with."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..types import Shape
from .base import Options


def fault(weight: Shape, shapes: Mapping[str, Shape], options: Options) -> str:
    """Scales must be one number, or one per row; of a bank of experts (experts, out, in) also one per expert."""
    if _shared(weight, prod(shapes["scale"])) is not None:
        return ""
    return f"scales of shape {list(shapes['scale'])} for a weight of {list(weight)}, expected one or one per row"


def broadcast(scale: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """float32 () for one scale, or (rows, 1, ...) for one per row."""
    shape = _shared(tuple(weight.shape), scale.numel())
    return scale.float().reshape(shape if shape is not None else scale.shape)


def _shared(weight: Shape, count: int) -> Shape | None:
    """The shape in which ``count`` scales fit a weight, each for what lies behind its leading dimensions."""
    if count == 1:
        return ()
    for dims in range(1, len(weight)):
        if prod(weight[:dims]) == count:
            return (*weight[:dims], *(1 for _ in weight[dims:]))
    return None


def peaks(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Largest magnitude for each scale, in the shape that ``broadcast`` gave it."""
    if scale.dim() == 0:
        low, high = weight.aminmax()
    else:
        low, high = weight.reshape(scale.numel(), -1).aminmax(dim=1)
    return torch.maximum(low.abs(), high.abs()).reshape(scale.shape)


def roomier(scale: torch.Tensor, peak: torch.Tensor, largest: float) -> torch.Tensor:
    """Scales by which floating-point numbers up to ``largest`` reach ``peak``: the old ones, or times a power of two.

    ``s' = s * 2^max(0, ceil(log2(peak / (largest * s))))``. Numbers of 8 bits with an exponent are as exact at twice
    the scale, and those that no patch changed stay what they were, but for the very smallest: multiples of the old
    scale's power of two are multiples of the new one's.
    """
    reach = scale.abs() * largest
    steps = torch.log2(peak / reach).ceil().clamp(min=0)
    grown = torch.where(steps > 0, scale * torch.exp2(steps), scale)
    return torch.where(reach > 0, grown, fresh(peak, largest))


def fresh(peak: torch.Tensor, largest: float) -> torch.Tensor:
    """``peak / largest``, and 1 where everything is zero."""
    return torch.where(peak > 0, peak / largest, torch.ones_like(peak))
