"""LoRA and LoCon: ``dW = strength * (alpha / rank) * up @ down``.

LoRA is Hu et al. 2021 (arXiv 2106.09685); convolutions and the Tucker form (``mid``) are LyCORIS's LoCon:
``dW[o, i, x, y] = up[o, r] mid[r, s, x, y] down[s, i]``. Stored shapes: down (rank, in) or (rank, in, k, k),
up (out, rank) or (out, rank, 1, 1), mid (rank, rank, k, k). An up factor may have a bias (PEFT's ``lora_bias``, BFL's
control LoRAs), which is added to the module's own: ``db = strength * (alpha / rank) * up_bias``.

DyLoRA saves the same, its ranks joined (LyCORIS, ``modules/dylora.py``; kohya-ss/sd-scripts, ``networks/dylora.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..io import TensorRef
from ..types import Shape
from .base import AdapterType, AdditiveDelta, Delta, Factors, Group, LowRankDelta
from .full import stored


class LoraDelta(LowRankDelta):
    """An additive low-rank change of a linear or convolution weight.

    Args:
        up, down, mid: stored factors; mid is None but for the Tucker form.
        scale: alpha / rank.
    """

    type = "lora"

    def __init__(self, up: TensorRef, down: TensorRef, mid: TensorRef | None, scale: float) -> None:
        self.tensors = (down, up) if mid is None else (down, up, mid)
        self.up, self.down, self.mid = up, down, mid
        self.rank = up.shape[1]
        self.scale = scale

    def factors(self, device: torch.device | str = "cpu") -> Factors:
        up = self.up.load(device).flatten(1)
        down = self.down.load(device)
        if self.mid is not None:
            # mid times down is the down factor of an ordinary LoCon; float32, it is a product.
            mid = self.mid.load(device, torch.float32)
            down = torch.einsum("rs...,si->ri...", mid, down.flatten(1).to(torch.float32))
        return Factors(up, down.flatten(1), self.scale)


class ScaledDelta(AdditiveDelta):
    """A stored difference times a scale: the bias of an up factor."""

    type = "lora"

    def __init__(self, difference: TensorRef, shape: Shape, scale: float) -> None:
        self.stored, self.shape, self.scale = difference, shape, scale
        self.tensors = (difference,)

    def difference(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        return self.stored.load(device, dtype).reshape(self.shape) * self.scale


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta from the roles down, up and perhaps mid; the bias's where up has one."""
    return with_bias(group, build_weight(group))


def with_bias(group: Group, weight: LoraDelta) -> Mapping[str, Delta]:
    """The weight's delta, and the bias's with the same scale where there is one."""
    if "up_bias" not in group.roles:
        return {"weight": weight}
    return {"weight": weight, "bias": ScaledDelta(*stored(group, "up_bias", "bias"), weight.scale)}


def build_weight(group: Group) -> LoraDelta:
    """Check the factors against the module and wrap them."""
    up, down, mid = (group.roles.get(role) for role in ("up", "down", "mid"))
    assert up is not None
    assert down is not None
    if len(group.weight) < 2:
        raise group.misfit("down", "no factors: the weight is a vector")
    out, inner = group.weight[0], group.weight[1:]
    rank = down.shape[0] if down.shape else 0
    if len(down.shape) < 2 or rank == 0:
        raise group.misfit("down", ("rank", *inner))
    if len(up.shape) < 2 or up.shape[0] != out or prod(up.shape[2:]) != 1:
        raise group.misfit("up", (out, up.shape[1] if len(up.shape) > 1 else rank))
    if mid is None:
        if prod(down.shape[1:]) != prod(inner):
            raise group.misfit("down", (rank, *inner))
        if up.shape[1] != rank:
            raise group.misfit("up", (out, rank))
    else:
        if prod(down.shape[1:]) != inner[0]:
            raise group.misfit("down", (rank, inner[0]))
        if mid.shape != (up.shape[1], rank, *inner[1:]):
            raise group.misfit("mid", (up.shape[1], rank, *inner[1:]))
    return LoraDelta(up, down, mid, group.scale_of(rank))


TYPE = AdapterType("lora", "LoRA / LoCon", frozenset({"down", "up"}), frozenset({"mid", "up_bias"}), build)
