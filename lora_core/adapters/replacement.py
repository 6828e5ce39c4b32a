"""Replacements: ``W' = W + strength * (V - W)``, V stored whole as ``set_weight``.

The norms of BFL's control LoRAs (FLUX.1 Depth and Canny), under the name that ComfyUI gives them. ComfyUI sets V
whatever the strength is; here it is the way from the base to V, as for every type, so that 0 is the base and 1 is V.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..io import TensorRef
from ..types import Shape
from .base import AdapterType, Delta, Group
from .full import stored


class ReplacementDelta(Delta):
    """A parameter's new value.

    Args:
        value: of as many numbers as the parameter, in its order.
        shape: of the parameter.
        start: its first row that this is the change of; None for all rows.
    """

    type = "replacement"

    def __init__(self, value: TensorRef, shape: Shape, start: int | None = None) -> None:
        self.value, self.shape, self.start = value, shape, start
        self.tensors = (value,)

    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        if strength == 0:
            return weight.clone()
        value = self.value.load(weight.device, weight.dtype).reshape(self.shape)
        if self.start is not None:
            value = value.narrow(0, self.start, weight.shape[0])
        return torch.lerp(weight, value, strength)

    def rows(self, start: int, length: int) -> Delta:
        return ReplacementDelta(self.value, self.shape, (self.start or 0) + start)


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta."""
    return {group.main: ReplacementDelta(*stored(group, "set_weight", group.main))}


TYPE = AdapterType("replacement", "new value", frozenset({"set_weight"}), frozenset(), build)
