"""LyCORIS's diag-OFT: blocks of outputs are rotated, ``W'[k] = R[k]^T W[k]``, and with ``rescale`` also scaled.

Stored: ``oft_blocks`` (blocks, b, b) with blocks * b = out, any square matrices X; ``R`` is the Cayley transform of
``X - X^T``. ``rescale`` (out, 1, ...). ``alpha`` is no scale: it is the constraint, and the norm of ``X - X^T`` over
all blocks is kept below alpha * out; 0 or none is no constraint.
Source: lycoris-lora 2.1 to 4.1, ``lycoris/modules/diag_oft.py``.

Where others differ: at fractions LyCORIS does what we do, but for ``rescale``, which it applies in full at strength
0. ComfyUI 0.30 squares the strength, leaves ``rescale`` out and takes alpha itself as the limit of the norm; it is
equal to us at strength 1 without either.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..io import TensorRef
from . import boft
from .base import AdapterType, Delta, Group
from .orthogonal import RotationDelta, cayley, rescale_of, rescaled, skew, turn


class DiagOftDelta(RotationDelta):
    """Rotated blocks of outputs.

    Args:
        blocks: the matrices X.
        rescale: a factor for each output, or None.
        constraint: limit of the norm over the number of outputs; 0 for none.
    """

    type = "diag-oft"

    def __init__(self, blocks: TensorRef, rescale: TensorRef | None, constraint: float) -> None:
        self.tensors = (blocks,) if rescale is None else (blocks, rescale)
        self.blocks, self.rescale = blocks, rescale
        self.count, self.size = blocks.shape[:2]
        self.limit = constraint * self.count * self.size

    def rotate(self, weight: torch.Tensor, start: int = 0) -> torch.Tensor:
        length = weight.shape[0]
        stored = self.blocks.load(weight.device, weight.dtype)
        # The limit is on the norm of all blocks; only those of these rows are inverted.
        rotation = cayley(skew(stored, self.limit).narrow(0, start // self.size, length // self.size))
        turned = turn(rotation.mT, weight)
        return rescaled(turned, self.rescale, start)

    def apart(self, row: int) -> bool:
        return row % self.size == 0


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta. Blocks of four dimensions are BOFT's, which has the same names."""
    blocks = group.roles["oft_blocks"]
    if len(blocks.shape) == 4:
        return boft.build(group)
    out = group.weight[0] if group.weight else 0
    if len(blocks.shape) != 3 or blocks.shape[1] != blocks.shape[2] or prod(blocks.shape[:2]) != out or not out:
        raise group.misfit("oft_blocks", f"(blocks, size, size), blocks * size = {out}")
    return {"weight": DiagOftDelta(blocks, rescale_of(group), group.alpha or 0.0)}


TYPE = AdapterType("diag-oft", "OFT", frozenset({"oft_blocks"}), frozenset({"rescale"}), build)
