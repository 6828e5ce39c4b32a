"""LoRA in parts: one pair of factors per block of rows, ``dW = (alpha / rank) * [up_0 @ down_0; up_1 @ down_1; ...]``.

kohya's sd-scripts with ``split_qkv`` trains q, k, v (and the feed-forward) of Flux's fused layers so. It joins them
when it saves; files that were saved before that have ``lora_down.0``, ``lora_up.0``, ... The blocks are in the order
of their numbers; each has the rank that alpha is divided by. Source: kohya-ss/sd-scripts, ``networks/lora_flux.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch

from ..io import TensorRef
from .base import AdapterType, Delta, Factors, Group, LowRankDelta
from .matrix import sizes


class SplitDelta(LowRankDelta):
    """Pairs of factors of blocks of rows, which are one pair: ups on the diagonal, downs above each other."""

    type = "lora"

    def __init__(self, ups: Sequence[TensorRef], downs: Sequence[TensorRef], scale: float) -> None:
        self.ups, self.downs, self.scale = tuple(ups), tuple(downs), scale
        self.tensors = (*self.downs, *self.ups)
        self.rank = sum(down.shape[0] for down in downs)

    def factors(self, device: torch.device | str = "cpu") -> Factors:
        ups = [up.load(device).flatten(1) for up in self.ups]
        up = ups[0].new_zeros(sum(block.shape[0] for block in ups), sum(block.shape[1] for block in ups))
        row = column = 0
        for block in ups:
            up[row : row + block.shape[0], column : column + block.shape[1]] = block
            row, column = row + block.shape[0], column + block.shape[1]
        return Factors(up, torch.cat([down.load(device).flatten(1) for down in self.downs]), self.scale)


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta; the blocks have to be pairs, and make up all rows."""
    out, inner = sizes(group)
    numbers = sorted({int(role.rpartition(".")[2]) for role in group.roles})
    for number in numbers:
        for role, other in ((f"up.{number}", f"down.{number}"), (f"down.{number}", f"up.{number}")):
            if role not in group.roles:
                raise group.misfit(other, f"{role} beside it")
    ups = [group.roles[f"up.{number}"] for number in numbers]
    downs = [group.roles[f"down.{number}"] for number in numbers]
    rank = downs[0].shape[0] if downs[0].shape else 0
    for number, up, down in zip(numbers, ups, downs, strict=True):
        if rank == 0 or down.shape[:1] != (rank,) or prod(down.shape[1:]) != prod(inner):
            raise group.misfit(f"down.{number}", (rank or "rank", *inner))
        if len(up.shape) < 2 or up.shape[1] != rank or prod(up.shape[2:]) != 1:
            raise group.misfit(f"up.{number}", ("rows", rank))
    rows = sum(up.shape[0] for up in ups)
    if rows != out:
        raise group.misfit(f"up.{numbers[-1]}", f"{out} rows in all blocks together, which have {rows}")
    return {"weight": SplitDelta(ups, downs, group.scale_of(rank))}


TYPE = AdapterType("lora_split", "LoRA in parts", frozenset({"down.*", "up.*"}), frozenset(), build)
