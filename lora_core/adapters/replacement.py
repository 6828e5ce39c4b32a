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
    """A parameter's new value."""

    type = "replacement"

    def __init__(self, value: TensorRef, shape: Shape, start: int = 0) -> None:
        self.value, self.shape, self.start = value, shape, start
        self.tensors = (value,)

    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        if strength == 0:
            return weight.clone()
        value = self.value.load(weight.device, weight.dtype).reshape(self.shape)
        return torch.lerp(weight, value.narrow(0, self.start, weight.shape[0]), strength)

    def rows(self, start: int, length: int) -> Delta:
        return ReplacementDelta(self.value, self.shape, self.start + start)


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta."""
    return {group.main: ReplacementDelta(*stored(group, "set_weight", group.main))}


TYPE = AdapterType("replacement", "new value", frozenset({"set_weight"}), frozenset(), build)
