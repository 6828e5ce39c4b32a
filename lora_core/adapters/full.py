"""Full differences: ``W' = W + strength * diff``, for weights (``diff``) and biases (``diff_b``).

LyCORIS's ``full`` and the extracts of several tools. A difference may be stored flattened; it is given the
weight's shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..io import TensorRef
from .base import AdapterType, Delta, Group


class FullDelta(Delta):
    """A stored difference of a whole parameter."""

    type = "full"

    def __init__(self, difference: TensorRef) -> None:
        self.difference = difference
        self.tensors = (difference,)

    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        difference = self.difference.load(weight.device, weight.dtype).reshape(weight.shape)
        return torch.add(weight, difference, alpha=strength)


def difference(group: Group, role: str, parameter: str) -> FullDelta:
    """The delta of a stored difference, checked against the parameter; norms use it too."""
    ref = group.roles[role]
    expected = group.shapes.get(parameter)
    if expected is None or prod(expected) != prod(ref.shape):
        raise group.misfit(role, expected or f"no {parameter} in this module")
    return FullDelta(ref)


def build(group: Group) -> Mapping[str, Delta]:
    """Deltas of weight and bias, whichever the file has."""
    roles = {"diff": "weight", "diff_b": "bias"}
    return {parameter: difference(group, role, parameter) for role, parameter in roles.items() if role in group.roles}


TYPE = AdapterType("full", "full difference", frozenset({"diff"}), frozenset({"diff_b"}), build)
BIAS_TYPE = AdapterType("bias", "bias difference", frozenset({"diff_b"}), frozenset(), build)
