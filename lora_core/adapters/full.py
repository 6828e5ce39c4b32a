"""Full differences: ``W' = W + strength * diff``, for weights (``diff``) and biases (``diff_b``).

LyCORIS's ``full`` and the extracts of several tools. A difference may be stored flattened, whole or from dimension
1 on, and with or without dimensions of size 1; it is given the weight's shape. Any other shape of as many numbers,
a transposed one above all, would put them in the wrong places and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..io import TensorRef
from ..types import Shape
from .base import AdapterType, AdditiveDelta, Delta, Group


class FullDelta(AdditiveDelta):
    """A stored difference of a whole parameter."""

    type = "full"

    def __init__(self, difference: TensorRef) -> None:
        self.stored = difference
        self.tensors = (difference,)

    def difference(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        return self.stored.load(device, dtype)


def difference(group: Group, role: str, parameter: str) -> FullDelta:
    """The delta of a stored difference, checked against the parameter; norms use it too."""
    ref = group.roles[role]
    expected = group.shapes.get(parameter)
    if expected is None or not _same_order(ref.shape, expected):
        raise group.misfit(role, expected or f"no {parameter} in this module")
    return FullDelta(ref)


def _same_order(stored: Shape, expected: Shape) -> bool:
    """Whether a tensor of one shape holds the numbers of the other in the same order."""
    whole, rows = (prod(expected),), (*expected[:1], prod(expected[1:]))
    return any(_long(stored) == _long(shape) for shape in (expected, whole, rows))


def _long(shape: Shape) -> Shape:
    """Without the dimensions of size 1, which order nothing."""
    return tuple(size for size in shape if size != 1)


def build(group: Group) -> Mapping[str, Delta]:
    """Deltas of weight and bias, whichever the file has."""
    roles = {"diff": "weight", "diff_b": "bias"}
    return {parameter: difference(group, role, parameter) for role, parameter in roles.items() if role in group.roles}


TYPE = AdapterType("full", "full difference", frozenset({"diff"}), frozenset({"diff_b"}), build)
BIAS_TYPE = AdapterType("bias", "bias difference", frozenset({"diff_b"}), frozenset(), build)
