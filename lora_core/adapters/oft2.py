"""OFT 2, OneTrainer's: blocks of inputs are rotated, so that the layer sees rotated activations.

Qiu et al. 2025 (arXiv 2506.19847). Stored: ``oft_R`` (blocks, b * (b - 1) / 2), for each block of inputs the numbers
above the diagonal of a skew-symmetric Q, row after row; blocks * b = in * kernel area, the weight flattened from
dimension 1 on; one block alone is shared by all. ``oft_R.scaled_oft`` is a mark: Q is then divided by
2 * sqrt(b - 1), so that blocks of all sizes learn at one rate. No alpha: the numbers are the rotation.

R is the Cayley transform cut off (Neumann's series): ``R = I + 2Q + 2Q^2 + 2Q^3 + Q^4``. A linear weight becomes
``W R^T`` in each block (its inputs x become x R), a convolution's becomes ``W R``, the other way round: OneTrainer
rotates activations of the one and the weight of the other. PEFT's ``oft_R`` differ in that and more: ``peft_oft``.
Source: Nerogar/OneTrainer, ``modules/module/oft_utils.py`` and ``OFTModule`` in ``LoRAModule.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt, prod, sqrt

import torch

from ..io import TensorRef
from ..types import Shape
from .base import AdapterType, Delta, Group
from .orthogonal import InputRotationDelta


class Oft2Delta(InputRotationDelta):
    """Rotated blocks of inputs.

    Args:
        vectors: the numbers above the diagonals.
        mark: says by being true that Q is to be divided by 2 * sqrt(b - 1); None where the file has none.
        convolution: whether the weight is one, which is turned the other way round.
    """

    type = "oft2"

    def __init__(self, vectors: TensorRef, mark: TensorRef | None, convolution: bool) -> None:
        self.tensors = (vectors,) if mark is None else (vectors, mark)
        self.vectors, self.mark, self.convolution = vectors, mark, convolution
        self.size = block_size(vectors.shape)

    def rotation(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        skewed = above_diagonal(self.vectors.load(device, dtype), self.size)
        if self.mark is not None and self.mark.item() and self.size > 1:
            skewed = skewed / (2 * sqrt(self.size - 1))
        made = neumann(skewed, SERIES)
        return made if self.convolution else made.mT


# Coefficients of I, Q, Q^2, ...
SERIES = (1.0, 2.0, 2.0, 2.0, 1.0)


def neumann(skewed: torch.Tensor, series: Sequence[float]) -> torch.Tensor:
    """The sum of powers of each block, by Horner's rule."""
    one = torch.eye(skewed.shape[-1], device=skewed.device, dtype=skewed.dtype)
    made = (series[-1] * one).expand_as(skewed)
    for factor in reversed(series[:-1]):
        made = made @ skewed + factor * one
    return made


def above_diagonal(vectors: torch.Tensor, size: int) -> torch.Tensor:
    """(blocks, size * (size - 1) / 2) to skew-symmetric (blocks, size, size)."""
    upper = torch.zeros(vectors.shape[0], size, size, device=vectors.device, dtype=vectors.dtype)
    rows, columns = torch.triu_indices(size, size, 1, device=vectors.device)
    upper[:, rows, columns] = vectors
    return upper - upper.mT


def block_size(vectors: Shape) -> int:
    """The b of b * (b - 1) / 2 numbers a block; 0 where no b has so many."""
    if len(vectors) != 2:
        return 0
    size = (1 + isqrt(1 + 8 * vectors[1])) // 2
    return size if size * (size - 1) // 2 == vectors[1] else 0


def check_vectors(group: Group, role: str) -> TensorRef:
    """The role's tensor, if its blocks are the weight's inputs; PEFT's type uses it too."""
    vectors = group.roles[role]
    size, inputs = block_size(vectors.shape), prod(group.weight[1:])
    if len(group.weight) < 2 or not size or inputs % size or vectors.shape[0] not in (1, inputs // size):
        raise group.misfit(role, f"(blocks, size * (size - 1) / 2), blocks * size = {inputs}, or one block for all")
    return vectors


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta from the roles oft_R and perhaps the mark."""
    vectors = check_vectors(group, "oft_R")
    return {"weight": Oft2Delta(vectors, group.roles.get(MARK), convolution=len(group.weight) > 2)}


# Its key is <module>.oft_R.scaled_oft, a bool.
MARK = "oft_R.scaled_oft"
TYPE = AdapterType("oft2", "OFT 2", frozenset({"oft_R"}), frozenset({MARK}), build)
