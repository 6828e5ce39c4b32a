"""PEFT's OFT, whose tensors changed twice. Blocks of inputs are rotated, in the oldest files blocks of outputs.

| PEFT | stored | weight |
|---|---|---|
| from 0.16 | ``peft_oft_R`` (blocks, b * (b - 1) / 2): Q above the diagonal | ``W R^T`` |
| 0.14, 0.15 | ``oft_r`` (blocks, b, b): X, and ``oft_s`` (out, 1) | ``W C(S) * oft_s``, ``S = (X - X^T) / 2`` |
| up to 0.13 | ``oft_r`` alone, blocks * b = out, the last block cut off where out is no multiple | ``C(S) W`` |

C is the Cayley transform ``(I + S) (I - S)^-1``. Weights are flattened from dimension 1 on; one block alone is shared
by all. ``peft_oft_R`` is the ``oft_R`` of PEFT's formats: the same tensor as OneTrainer's ``oft2``, but convolutions
are turned like linear weights, as PEFT's own merge does it. (For kernels larger than 1 x 1 PEFT's unmerged forward
pass is something else.) PEFT has no strength for OFT.

How R comes from Q is in the configuration (``Group.settings``): ``use_cayley_neumann`` (true by default) is the
series ``I + 2Q + 2Q^2 + ...`` of ``num_cayley_neumann_terms`` (5) powers, of which the last counts once since 0.18,
the first version that states itself in ``peft_version``; without it, ``R = (I - Q) (I + Q)^-1``, which turns the other
way. ``coft`` keeps the norm of each block's Q below eps / sqrt(blocks). Source: PEFT, ``tuners/oft/layer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod, sqrt

import torch

from ..io import TensorRef
from ..numeric import finite
from .base import AdapterType, Delta, Group
from .oft2 import SERIES, above_diagonal, block_size, check_vectors, neumann
from .orthogonal import InputRotationDelta, RotationDelta, cayley, rescaled, skew, turn


class PeftOftDelta(InputRotationDelta):
    """Rotated blocks of inputs.

    Args:
        vectors: the numbers above the diagonals.
        settings: PEFT's configuration, where the file comes with one.
    """

    type = "peft-oft"

    def __init__(self, vectors: TensorRef, settings: Mapping[str, object]) -> None:
        self.vectors, self.tensors = vectors, (vectors,)
        self.size = block_size(vectors.shape)
        self.series = _series(settings) if settings.get("use_cayley_neumann", True) else None
        eps = finite(settings.get("eps"))
        self.limit = (6e-5 if eps is None else eps) / sqrt(vectors.shape[0]) if settings.get("coft") else None

    @property
    def as_oft2(self) -> bool:
        """Whether OneTrainer's OFT is the same rotation, for linear weights."""
        return self.series == SERIES and self.limit is None

    def rotation(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        skewed = above_diagonal(self.vectors.load(device, dtype), self.size)
        if self.limit is not None:
            norm = skewed.square().sum(dim=(1, 2), keepdim=True).sqrt()
            skewed = torch.where(norm > self.limit, skewed * (self.limit / norm), skewed)
        return cayley(skewed) if self.series is None else neumann(skewed, self.series).mT


def _series(settings: Mapping[str, object]) -> tuple[float, ...]:
    """The coefficients of I, Q, Q^2, ..."""
    terms = finite(settings.get("num_cayley_neumann_terms"))
    count = 5 if terms is None else min(max(int(terms), 1), 64)
    if count < 3:
        return (1.0, 2.0)[:count]
    if settings and not settings.get("peft_version"):
        return (1.0, *[2.0] * (count - 1))
    # Three terms have a third power as well.
    return (1.0, *[2.0] * (max(count, 4) - 2), 1.0)


class OldInputsDelta(InputRotationDelta):
    """PEFT 0.14 and 0.15: rotated blocks of inputs, and a factor for each output."""

    type = "peft-oft-old"

    def __init__(self, matrices: TensorRef, factors: TensorRef) -> None:
        self.matrices, self.factor_of_rows, self.tensors = matrices, factors, (matrices, factors)

    def rotation(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        return cayley(skew(self.matrices.load(device, dtype)) / 2)

    def rotate(self, weight: torch.Tensor, start: int = 0) -> torch.Tensor:
        turned = super().rotate(weight, start)
        return rescaled(turned.flatten(1), self.factor_of_rows, start).reshape(weight.shape)


class OldOutputsDelta(RotationDelta):
    """PEFT up to 0.13: rotated blocks of ``out`` outputs."""

    type = "peft-oft-old"

    def __init__(self, matrices: TensorRef, out: int) -> None:
        self.matrices, self.tensors = matrices, (matrices,)
        self.out, self.size = out, matrices.shape[1]

    def rotate(self, weight: torch.Tensor, start: int = 0) -> torch.Tensor:
        rotations = cayley(skew(self.matrices.load(weight.device, weight.dtype)) / 2)
        rows = weight.flatten(1)
        length = rows.shape[0]
        blocks = -(-length // self.size)
        first = start // self.size
        shared = rotations.shape[0] == 1
        chosen = rotations.expand(blocks, -1, -1) if shared else rotations[first : first + blocks]
        # What is cut off the last block meets zeros.
        filled = torch.nn.functional.pad(rows, (0, 0, 0, blocks * self.size - length))
        return turn(chosen, filled)[:length].reshape(weight.shape)

    def apart(self, row: int) -> bool:
        return row % self.size == 0 or row == self.out


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta from the role peft_oft_R."""
    return {"weight": PeftOftDelta(check_vectors(group, "peft_oft_R"), group.settings or {})}


def build_old(group: Group) -> Mapping[str, Delta]:
    """The weight's delta from oft_r; oft_s says which of the two older kinds it is."""
    matrices, factors = group.roles["oft_r"], group.roles.get("oft_s")
    out = group.weight[0] if group.weight else 0
    rotated = out if factors is None else prod(group.weight[1:])
    shape = matrices.shape
    square = len(shape) == 3 and shape[1] == shape[2] and 0 not in shape
    # Blocks are as large as needed for their number to cover everything.
    if len(group.weight) < 2 or not square or not (shape[0] == 1 or -(-rotated // shape[0]) == shape[1]):
        raise group.misfit("oft_r", f"(blocks, size, size), blocks * size = {rotated}, or one block for all")
    if factors is None:
        return {"weight": OldOutputsDelta(matrices, out)}
    if rotated % shape[1]:
        raise group.misfit("oft_r", f"(blocks, size, size), blocks * size = {rotated}, or one block for all")
    if factors.shape != (out, 1):
        raise group.misfit("oft_s", (out, 1))
    return {"weight": OldInputsDelta(matrices, factors)}


TYPE = AdapterType("peft-oft", "OFT of PEFT", frozenset({"peft_oft_R"}), frozenset(), build)
OLD_TYPE = AdapterType("peft-oft-old", "OFT of older PEFT", frozenset({"oft_r"}), frozenset({"oft_s"}), build_old)
