"""DoRA: a low-rank change of the direction, and a stored magnitude.

``V = W + (alpha / rank) * up @ down``, ``W' = magnitude * V / |V|``, ``result = W + strength * (W' - W)``.
Liu et al. 2024 (arXiv 2402.09353). The norm runs per output row (PEFT, and LyCORIS with
``wd_on_output``) or per input column (LyCORIS's and OneTrainer's first default). The strength enters after
the decomposition, as in the host, so that 0 is the base. (LyCORIS's own multiplier scales ``magnitude / |V| - 1``
instead and at 0 leaves the low-rank part in; at 1 all agree.)
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..io import TensorRef
from .base import AdapterType, Delta, Group
from .lora import LoraDelta, build_weight


class DoraDelta(Delta):
    """A weight-decomposed change.

    Args:
        direction: the low-rank part.
        magnitude: one number per output row or per input column.
        per_output: which of the two.
    """

    type = "dora"

    def __init__(self, direction: LoraDelta, magnitude: TensorRef, per_output: bool) -> None:
        self.direction, self.magnitude, self.per_output = direction, magnitude, per_output
        self.tensors = (*direction.tensors, magnitude)
        self.rank, self.scale = direction.rank, direction.scale

    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        if strength == 0:
            return weight.clone()
        moved = self.direction.apply(weight, 1.0)
        magnitude = self.magnitude.load(weight.device, weight.dtype)
        kept = 0 if self.per_output else 1
        others = [dim for dim in range(weight.dim()) if dim != kept]
        norm = moved.square().sum(dim=others, keepdim=True).sqrt()
        # A column of zeros has no direction; the smallest step keeps it zero instead of NaN.
        norm = norm + torch.finfo(weight.dtype).eps
        shape = [1] * weight.dim()
        shape[kept] = weight.shape[kept]
        decomposed = moved * (magnitude.reshape(shape) / norm)
        return torch.lerp(weight, decomposed, strength)


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta; the role decides the axis of the magnitude, its shape where the role cannot.

    ``magnitude`` (PEFT) is always per output. ``dora_scale`` (LyCORIS) is (out, 1, ...) or (1, in, 1, ...).
    """
    direction = build_weight(group)
    out, into = group.weight[0], group.weight[1]
    if "magnitude" in group.roles:
        magnitude, per_output = group.roles["magnitude"], True
        if prod(magnitude.shape) != out:
            raise group.misfit("magnitude", (out,))
    else:
        magnitude = group.roles["dora_scale"]
        per_output = bool(magnitude.shape) and magnitude.shape[0] == out and prod(magnitude.shape) == out
        per_input = magnitude.shape[:2] == (1, into) and prod(magnitude.shape) == into
        if not per_output and not per_input:
            raise group.misfit("dora_scale", f"({out}, 1) or (1, {into})")
    return {"weight": DoraDelta(direction, magnitude, per_output)}


_SHARED = frozenset({"down", "up"})
TYPE = AdapterType("dora", "DoRA", _SHARED | {"dora_scale"}, frozenset({"mid"}), build)
PEFT_TYPE = AdapterType("dora_peft", "DoRA (PEFT)", _SHARED | {"magnitude"}, frozenset({"mid"}), build)
