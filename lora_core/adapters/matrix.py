"""A matrix as a file stores it: whole, as a product of two factors, or in Tucker form. Types are made of these.

Whole: (out, in...). Product: ``up @ down``, up (out, rank) or (out, rank, 1, 1), down (rank, in...). Tucker:
``M[o, i, ...] = core[r, s, ...] up[r, o] down[s, i]``, up (r, out), down (s, in), core (r, s, kernel): LyCORIS and PEFT
turn the up factor round there (not so in LoCon, whose Tucker form ``lora`` computes).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from ..io import TensorRef
from ..types import Shape
from .base import Group


@dataclass(frozen=True, slots=True)
class Matrix:
    """A stored matrix, read when it is used.

    Args:
        tensors: (whole,), (up, down) or (up, down, core).
        rank: of the factors, None for a whole one.
    """

    tensors: tuple[TensorRef, ...]
    rank: int | None

    def load(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        """2-D, (out, in * kernel area), product done in ``dtype``. May be the file's memory: not to be written to."""
        first, *others = (ref.load(device, dtype).flatten(1) for ref in self.tensors[:2])
        if not others:
            return first
        [second] = others
        if len(self.tensors) == 2:
            return first @ second
        core = self.tensors[2].load(device, dtype)
        return torch.einsum("rs...,ro,si->oi...", core, first, second).flatten(1)


def whole(group: Group, role: str, out: int, inner: Shape) -> Matrix:
    """The matrix of a role, (out, inner...) or with ``inner`` flattened."""
    ref = group.roles[role]
    if len(ref.shape) < 2 or ref.shape[0] != out or prod(ref.shape[1:]) != prod(inner):
        raise group.misfit(role, (out, *inner))
    return Matrix((ref,), None)


def product(group: Group, up: str, down: str, out: int, inner: Shape) -> Matrix:
    """The product of two roles' factors; ``ShapeMismatchError`` where it is not (out, inner...)."""
    first, second = group.roles[up], group.roles[down]
    rank = _rank(group, down)
    if prod(second.shape[1:]) != prod(inner):
        raise group.misfit(down, (rank, *inner))
    if len(first.shape) < 2 or first.shape[:2] != (out, rank) or prod(first.shape[2:]) != 1:
        raise group.misfit(up, (out, rank))
    return Matrix((first, second), rank)


def tucker(group: Group, up: str, down: str, core: str, out: int, inner: Shape) -> Matrix:
    """The Tucker form of three roles; ``ShapeMismatchError`` where it is not (out, inner...)."""
    first, second, middle = group.roles[up], group.roles[down], group.roles[core]
    rank, outer_rank = _rank(group, down), _rank(group, up)
    if prod(second.shape[1:]) != inner[0]:
        raise group.misfit(down, (rank, inner[0]))
    if prod(first.shape[1:]) != out:
        raise group.misfit(up, (outer_rank, out))
    if middle.shape[:2] != (outer_rank, rank) or prod(middle.shape[2:]) != prod(inner[1:]):
        raise group.misfit(core, (outer_rank, rank, *inner[1:]))
    return Matrix((first, second, middle), rank)


def _rank(group: Group, role: str) -> int:
    shape = group.roles[role].shape
    if len(shape) < 2 or shape[0] == 0:
        raise group.misfit(role, "a factor with its rank in front")
    return shape[0]


def sizes(group: Group) -> tuple[int, Shape]:
    """(out, (in, kernel...)) of the module's weight, which has to be a matrix or a convolution."""
    if len(group.weight) < 2:
        raise group.misfit(next(iter(group.roles)), f"nothing: the weight is no matrix but {group.weight}")
    return group.weight[0], group.weight[1:]
