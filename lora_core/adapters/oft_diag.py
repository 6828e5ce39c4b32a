"""OFT of LyCORIS 2.0: the rotation itself is stored, ``W'[k] = oft_diag[k]^T W[k]``.

Stored: ``oft_diag`` (blocks, b, b) with blocks * b = out, and nothing else: a constraint and ``rescale`` are worked in.
The first builds of 2.0 (2.0.0.dev3 to dev9) stored ``R - I`` under the same name. The shapes are equal and the numbers
are not: the diagonal of a rotation that was trained is near 1, that of a difference near 0, so its mean decides.
Source: lycoris-lora 2.0.0 to 2.0.2, ``lycoris/modules/diag_oft.py``; fractions of strength as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..io import TensorRef
from .base import AdapterType, Delta, Group
from .orthogonal import RotationDelta, turn


class OftDiagDelta(RotationDelta):
    """Blocks of outputs, multiplied by stored matrices."""

    type = "oft-diag"

    def __init__(self, matrices: TensorRef) -> None:
        self.matrices, self.tensors = matrices, (matrices,)
        self.size = matrices.shape[1]

    def rotate(self, weight: torch.Tensor, start: int = 0) -> torch.Tensor:
        matrices = self.matrices.load(weight.device, weight.dtype)
        if bool(matrices.diagonal(dim1=1, dim2=2).mean() < 0.5):
            matrices = matrices + torch.eye(self.size, device=weight.device, dtype=weight.dtype)
        return turn(matrices.narrow(0, start // self.size, weight.shape[0] // self.size).mT, weight)

    def apart(self, row: int) -> bool:
        return row % self.size == 0


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta from the role oft_diag."""
    matrices = group.roles["oft_diag"]
    out = group.weight[0] if group.weight else 0
    shape = matrices.shape
    if len(shape) != 3 or shape[1] != shape[2] or prod(shape[:2]) != out or not out:
        raise group.misfit("oft_diag", f"(blocks, size, size), blocks * size = {out}")
    return {"weight": OftDiagDelta(matrices)}


TYPE = AdapterType("oft-diag", "OFT of LyCORIS 2.0", frozenset({"oft_diag"}), frozenset(), build)
