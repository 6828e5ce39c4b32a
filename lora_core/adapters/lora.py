"""LoRA and LoCon: ``dW = strength * (alpha / rank) * up @ down``.

LoRA is Hu et al. 2021 (arXiv 2106.09685); convolutions and the Tucker form (``mid``) are LyCORIS's LoCon:
``dW[o, i, x, y] = up[o, r] mid[r, s, x, y] down[s, i]``. Stored shapes: down (rank, in) or (rank, in, k, k),
up (out, rank) or (out, rank, 1, 1), mid (rank, rank, k, k).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..io import TensorRef
from .base import AdapterType, AdditiveDelta, Delta, Factors, Group


class LoraDelta(AdditiveDelta):
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
        """up (out, rank) and down (rank, in * kernel area)."""
        up = self.up.load(device).flatten(1)
        down = self.down.load(device)
        if self.mid is not None:
            # mid times down is the down factor of an ordinary LoCon; float32, it is a product.
            mid = self.mid.load(device, torch.float32)
            down = torch.einsum("rsxy,si->rixy", mid, down.flatten(1).to(torch.float32))
        return Factors(up, down.flatten(1), self.scale)

    def difference(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        up, down, scale = self.factors(device)
        return (up.to(dtype) @ down.to(dtype)).mul_(scale)

    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        """As one product, which rounds once."""
        up, down, scale = self.factors(weight.device)
        flat = weight.flatten(1)
        return torch.addmm(flat, up.to(flat.dtype), down.to(flat.dtype), alpha=strength * scale).reshape(weight.shape)


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta from the roles down, up and perhaps mid."""
    return {"weight": build_weight(group)}


def build_weight(group: Group) -> LoraDelta:
    """Check the factors against the module and wrap them; DoRA uses it too."""
    up, down, mid = group.roles["up"], group.roles["down"], group.roles.get("mid")
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


TYPE = AdapterType("lora", "LoRA / LoCon", frozenset({"down", "up"}), frozenset({"mid"}), build)
