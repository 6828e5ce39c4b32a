"""kohya's OFT: blocks of outputs are rotated, ``W'[k] = R[k]^T W[k]``; of a fused matrix q, k, v and mlp apart.

Stored: ``kohya_oft_blocks`` (blocks, b, b) with blocks * b = out; or a list of them, whose rows follow each other, for
Flux's fused matrices. The roles have a name of their own because their files' ``oft_blocks`` differ from LyCORIS's in
the constraint: the norm of ``X - X^T``, over the blocks of a list's entry, is kept below alpha * rows of that entry,
and an alpha of 0 allows no rotation at all. No alpha is no constraint; kohya always writes one. Fractions of strength
are kohya's own. Source: kohya-ss/sd-scripts, ``networks/oft.py`` and ``networks/oft_flux.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..io import TensorRef
from .base import AdapterType, Delta, Group
from .orthogonal import RotationDelta, cayley, skew

ROLE = "kohya_oft_blocks"


class KohyaOftDelta(RotationDelta):
    """Rotated blocks of outputs, in one or several runs of rows.

    Args:
        parts: the matrices X of each run, in the order of rows.
        alpha: limit of a run's norm over its number of rows; None for none.
    """

    type = "kohya-oft"

    def __init__(self, parts: tuple[TensorRef, ...], alpha: float | None) -> None:
        self.parts = self.tensors = parts
        self.alpha = alpha

    def rotate(self, weight: torch.Tensor, start: int = 0) -> torch.Tensor:
        turned = torch.empty_like(weight)
        row = -start
        for part in self.parts:
            count, size = part.shape[:2]
            if row < weight.shape[0] and row + count * size > 0:
                blocks = part.load(weight.device, weight.dtype)
                kept = self._kept(blocks)
                # One at a time: kohya's blocks are few and wide, up to 4608 in Flux.
                for block in blocks:
                    if 0 <= row < weight.shape[0]:
                        rows = weight[row : row + size]
                        rotation = cayley(skew(block) * kept)
                        turned[row : row + size] = (rotation.mT @ rows.flatten(1)).reshape(rows.shape)
                    row += size
            else:
                row += count * size
        return turned

    def _kept(self, blocks: torch.Tensor) -> torch.Tensor:
        """What the limit leaves of a run: a factor, 1 where its norm is smaller."""
        norm = torch.stack([skew(block).square().sum() for block in blocks]).sum().sqrt()
        if self.alpha is None:
            return torch.ones_like(norm)
        limit = self.alpha * blocks.shape[0] * blocks.shape[1]
        return (norm.clamp(max=limit) + 1e-8) / (norm + 1e-8)

    def apart(self, row: int) -> bool:
        for part in self.parts:
            blocks, size = part.shape[:2]
            if row < blocks * size:
                return row % size == 0
            row -= blocks * size
        return row == 0


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta from one tensor or from all of a list."""
    roles = sorted(group.roles, key=lambda role: int(role.rpartition(".")[2]) if "." in role else 0)
    for role in roles:
        shape = group.roles[role].shape
        if len(shape) != 3 or shape[1] != shape[2] or 0 in shape:
            raise group.misfit(role, "(blocks, size, size)")
    parts = tuple(group.roles[role] for role in roles)
    out = group.weight[0] if group.weight else 0
    rows = [part.shape[0] * part.shape[1] for part in parts]
    if sum(rows) != out:
        raise group.misfit(roles[-1], f"(blocks, size, size), blocks * size = {out - sum(rows[:-1])}")
    return {"weight": KohyaOftDelta(parts, group.alpha)}


_EITHER = (frozenset({ROLE}), frozenset({f"{ROLE}.*"}))
TYPE = AdapterType("kohya-oft", "OFT of kohya", frozenset(), frozenset(), build, one_of=(_EITHER,))
