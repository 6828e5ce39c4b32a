"""BOFT: stages of block rotations of outputs, between which rows change places as in a butterfly.

Liu et al. 2023 (arXiv 2311.06243), in LyCORIS's form. Stored: ``oft_blocks`` (stages, blocks, b, b) with blocks * b =
out and b even; ``rescale`` (out, 1, ...); ``alpha`` is the constraint, as in diag-OFT, on the norm over all stages.
Stage i takes rows in groups of 2^i * b, pairs those that are half a group apart and multiplies each block of b rows
by its ``R[i]`` (not its transpose, unlike diag-OFT). Source: lycoris-lora 3.0 to 4.1, ``lycoris/modules/boft.py``.

Where others differ: LyCORIS and ComfyUI 0.30 bring each stage nearer to the identity at fractions of strength
(ComfyUI then multiplies by the strength once more), and keep ``rescale`` in full; ComfyUI takes alpha itself as the
limit of the norm. At strength 1 without a constraint all are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..io import TensorRef
from .base import AdapterType, Delta, Group
from .orthogonal import RotationDelta, cayley, rescale_of, rescaled, skew, turn


class BoftDelta(RotationDelta):
    """A butterfly of rotated outputs.

    Args:
        blocks: the matrices X.
        rescale: a factor for each output, or None.
        constraint: limit of the norm over the number of outputs; 0 for none.
    """

    type = "boft"

    def __init__(self, blocks: TensorRef, rescale: TensorRef | None, constraint: float) -> None:
        self.tensors = (blocks,) if rescale is None else (blocks, rescale)
        self.blocks, self.rescale = blocks, rescale
        self.stages, self.count, self.size = blocks.shape[:3]
        self.limit = constraint * self.count * self.size
        # Rows that the last stage, the widest, mixes with each other.
        self.span = 2 ** (self.stages - 1) * self.size

    def rotate(self, weight: torch.Tensor, start: int = 0) -> torch.Tensor:
        length = weight.shape[0]
        stored = self.blocks.load(weight.device, weight.dtype)
        rotations = cayley(skew(stored, self.limit).narrow(1, start // self.size, length // self.size))
        turned = weight.flatten(1)
        for stage, rotation in enumerate(rotations):
            half = 2**stage * (self.size // 2)
            paired = turned.reshape(-1, 2, half, turned.shape[1]).transpose(1, 2)
            mixed = turn(rotation, paired.reshape(length, -1))
            turned = mixed.reshape(-1, half, 2, turned.shape[1]).transpose(1, 2).reshape(length, -1)
        turned = turned.reshape(weight.shape)
        return rescaled(turned, self.rescale, start)

    def apart(self, row: int) -> bool:
        return row % self.span == 0


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta from the roles oft_blocks and perhaps rescale."""
    blocks = group.roles["oft_blocks"]
    out = group.weight[0] if group.weight else 0
    if len(blocks.shape) != 4 or blocks.shape[2] != blocks.shape[3] or prod(blocks.shape[1:3]) != out or not out:
        raise group.misfit("oft_blocks", f"(stages, blocks, size, size), blocks * size = {out}")
    stages, _, size, _ = blocks.shape
    if size % 2 or stages == 0 or out % (2 ** (stages - 1) * size):
        raise group.misfit("oft_blocks", f"an even size, and at most as many stages as halve {out} outputs evenly")
    return {"weight": BoftDelta(blocks, rescale_of(group), group.alpha or 0.0)}


# Its roles are diag-OFT's: that type is asked first and hands blocks of four dimensions over.
TYPE = AdapterType("boft", "BOFT", frozenset({"oft_blocks"}), frozenset({"rescale"}), build)
