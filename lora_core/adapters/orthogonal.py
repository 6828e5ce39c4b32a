"""What the orthogonal types share: ``W' = W + strength * (R(W) - W)``, where R rotates blocks of rows or columns.

Qiu et al. 2023 (arXiv 2306.07280). A block's rotation is the Cayley transform of a skew-symmetric matrix,
``Q = X - X^T``, ``R = (I + Q) (I - Q)^-1``. Rotations stay in blocks, a matrix of (out, out) is never made.

The strength is the way from the base to the weight that the program which wrote the file would merge: 0 is exactly
the base, 1 the program's own result. LyCORIS's diag-OFT and kohya scale ``R - I``, which is the same. (Where they are
something else at fractions, the type's file says so.)
"""

from __future__ import annotations

from abc import abstractmethod
from typing import cast

import torch

from ..io import TensorRef
from .base import Delta, Group


class RotationDelta(Delta):
    """A change of direction: it depends on the weight."""

    @abstractmethod
    def rotate(self, weight: torch.Tensor, start: int = 0) -> torch.Tensor:
        """R(W) of rows ``start`` on; ``weight`` is all of the rows or, where ``apart`` allows it, some."""

    @abstractmethod
    def apart(self, row: int) -> bool:
        """Whether no row before this one is mixed with one from it on."""

    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        if strength == 0 or weight.numel() == 0:
            return weight.clone()
        return torch.lerp(weight, self.rotate(weight), strength)

    def rows(self, start: int, length: int) -> Delta | None:
        return _Rows(self, start, length) if self.apart(start) and self.apart(start + length) else None


class InputRotationDelta(RotationDelta):
    """A rotation of inputs in blocks: the weight, flattened from dimension 1 on, is multiplied from the right."""

    @abstractmethod
    def rotation(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        """(blocks, b, b), what each block of inputs is multiplied with; one block is for all."""

    def rotate(self, weight: torch.Tensor, start: int = 0) -> torch.Tensor:
        rotation = self.rotation(weight.device, weight.dtype)
        blocks = weight.reshape(weight.shape[0], -1, rotation.shape[-1]).transpose(0, 1)
        return (blocks @ rotation).transpose(0, 1).reshape(weight.shape)

    def apart(self, row: int) -> bool:
        return True


class _Rows(RotationDelta):
    """Some rows of a rotation."""

    def __init__(self, whole: RotationDelta, start: int, length: int) -> None:
        self.type, self.tensors, self.rank, self.scale = whole.type, whole.tensors, whole.rank, whole.scale
        self.whole, self.start, self.length = whole, start, length

    def rotate(self, weight: torch.Tensor, start: int = 0) -> torch.Tensor:
        return self.whole.rotate(weight, self.start + start)

    def apart(self, row: int) -> bool:
        return self.whole.apart(self.start + row)


def skew(blocks: torch.Tensor, limit: float = 0.0) -> torch.Tensor:
    """``X - X^T`` of each block; its norm over all blocks is made ``limit`` where it is larger. 0 is no limit."""
    made = blocks - blocks.mT
    if not limit > 0:
        return made
    norm = made.square().sum().sqrt() + 1e-8  # LyCORIS's, which keeps zero blocks from dividing by zero
    return made * torch.clamp(limit / norm, max=1.0)


def cayley(skewed: torch.Tensor) -> torch.Tensor:
    """``(I + Q) (I - Q)^-1`` of each block. The two commute, so it is one solution instead of an inverse."""
    one = torch.eye(skewed.shape[-1], device=skewed.device, dtype=skewed.dtype)
    solved = torch.linalg.solve(one - skewed, one + skewed)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return cast("torch.Tensor", solved)


def turn(rotations: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply each block of rows by its matrix: (blocks, b, b) with a weight of (blocks * b, ...)."""
    blocks, size = rotations.shape[0], rotations.shape[-1]
    return torch.bmm(rotations, weight.reshape(blocks, size, -1)).reshape(weight.shape)


def rescale_of(group: Group) -> TensorRef | None:
    """LyCORIS's ``rescale``, one number an output, stored (out, 1, ...); None where the file has none."""
    rescale = group.roles.get("rescale")
    expected = (*group.weight[:1], *[1] * (len(group.weight) - 1))
    if rescale is not None and rescale.shape != expected:
        raise group.misfit("rescale", expected)
    return rescale


def rescaled(weight: torch.Tensor, rescale: TensorRef | None, start: int) -> torch.Tensor:
    """Each of the rows from ``start`` on times its number."""
    if rescale is None:
        return weight
    return weight * rescale.load(weight.device, weight.dtype).narrow(0, start, weight.shape[0])
