"""Full differences: ``W' = W + strength * diff``, for weights (``diff``), biases (``diff_b``) and bare parameters.

LyCORIS's ``full`` and the extracts of several tools. ``diff_m`` (lightx2v's and Kijai's extracts) is of Wan's blocks,
which hold a parameter ``modulation`` of their own. A difference may be stored flattened, whole or from dimension 1 on,
and with or without dimensions of size 1; it is given the weight's shape. Any other shape of as many numbers, a
transposed one above all, would put them in the wrong places and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..io import TensorRef
from ..types import Shape
from .base import AdapterType, AdditiveDelta, Delta, Group


class FullDelta(AdditiveDelta):
    """A stored difference of a whole parameter.

    Args:
        difference: of as many numbers as the parameter, in its order.
        shape: of the parameter.
        type: name for reports.
    """

    def __init__(self, difference: TensorRef, shape: Shape, type: str = "full") -> None:
        self.stored, self.shape, self.type = difference, shape, type
        self.tensors = (difference,)

    def difference(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        return self.stored.load(device, dtype).reshape(self.shape)


def differences(group: Group, parameters: Mapping[str, str], type: str = "full") -> Mapping[str, Delta]:
    """The deltas of stored differences, role -> parameter, for those roles that the group has; norms use it too."""
    return {
        parameter: FullDelta(*stored(group, role, parameter), type)
        for role, parameter in parameters.items()
        if role in group.roles
    }


def stored(group: Group, role: str, parameter: str) -> tuple[TensorRef, Shape]:
    """A role that has the numbers of a whole parameter, and that parameter's shape."""
    ref = group.roles[role]
    expected = group.shapes.get(parameter)
    if expected is None or not _same_order(ref.shape, expected):
        raise group.misfit(role, expected or f"no {parameter} in this module")
    return ref, expected


def _same_order(stored: Shape, expected: Shape) -> bool:
    """Whether a tensor of one shape holds the numbers of the other in the same order."""
    whole, rows = (prod(expected),), (*expected[:1], prod(expected[1:]))
    return any(_long(stored) == _long(shape) for shape in (expected, whole, rows))


def _long(shape: Shape) -> Shape:
    """Without the dimensions of size 1, which order nothing."""
    return tuple(size for size in shape if size != 1)


def build(group: Group) -> Mapping[str, Delta]:
    """Deltas of weight and bias, whichever the file has."""
    return differences(group, {"diff": group.main, "diff_b": "bias"})


def build_modulation(group: Group) -> Mapping[str, Delta]:
    """The delta of a block's own parameter."""
    return differences(group, {"diff_m": "modulation"})


TYPE = AdapterType("full", "full difference", frozenset({"diff"}), frozenset({"diff_b"}), build)
BIAS_TYPE = AdapterType("bias", "bias difference", frozenset({"diff_b"}), frozenset(), build)
MODULATION_TYPE = AdapterType(
    "modulation", "modulation difference", frozenset({"diff_m"}), frozenset(), build_modulation
)
