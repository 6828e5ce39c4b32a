"""DoRA: an additive change of the direction, and a stored magnitude.

``V = W + difference``, ``W' = magnitude * V / |V|``, ``result = W + strength * (W' - W)``. Liu et al. 2024
(arXiv 2402.09353), where the difference is a LoRA's; LyCORIS writes magnitudes (``dora_scale``) beside LoHa and LoKr
too. The norm runs per output row (PEFT, and LyCORIS with ``wd_on_output``) or per input column (LyCORIS's and
OneTrainer's first default). The strength enters after the decomposition, as in the host, so that 0 is the base.
(LyCORIS's own multiplier scales ``magnitude / |V| - 1`` instead and at 0 leaves the difference in; at 1 all agree.)
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..io import TensorRef
from . import loha, lokr, lora
from .base import AdapterType, Delta, Group


class DoraDelta(Delta):
    """A weight-decomposed change.

    Args:
        type: name for reports.
        direction: the additive part.
        magnitude: one number per output row or per input column.
        per_output: which of the two.
        start: of the magnitudes' rows, where this is the change of some rows alone.
    """

    def __init__(self, type: str, direction: Delta, magnitude: TensorRef, per_output: bool, start: int = 0) -> None:
        self.type = type
        self.direction, self.magnitude, self.per_output, self.start = direction, magnitude, per_output, start
        self.tensors = (*direction.tensors, magnitude)
        self.rank, self.scale = direction.rank, direction.scale

    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        if strength == 0:
            return weight.clone()
        moved = self.direction.apply(weight, 1.0)
        kept = 0 if self.per_output else 1
        others = [dim for dim in range(weight.dim()) if dim != kept]
        # A column of zeros has no direction; the smallest step keeps it zero instead of NaN.
        norm = moved.square().sum(dim=others, keepdim=True).sqrt() + torch.finfo(weight.dtype).eps
        magnitude = self.magnitude.load(weight.device, weight.dtype).flatten()
        magnitude = magnitude.narrow(0, self.start, weight.shape[kept]).reshape(norm.shape)
        return torch.lerp(weight, moved.mul_(magnitude / norm), strength)

    def rows(self, start: int, length: int) -> Delta | None:
        """Rows have magnitudes of their own; a column's norm runs over all rows, so its rows do not change apart."""
        direction = self.direction.rows(start, length)
        if direction is None or not self.per_output:
            return None
        return DoraDelta(self.type, direction, self.magnitude, True, self.start + start)


def over(base: AdapterType, role: str, name: str, title: str) -> AdapterType:
    """The row of DoRA over an additive type: its roles and a magnitude.

    ``magnitude`` (PEFT) is always per output. ``dora_scale`` (LyCORIS) says by its shape what it is: (out, 1, ...) or
    (out,), or (1, in, 1, ...).
    """

    def build(group: Group) -> Mapping[str, Delta]:
        made = dict(base.build(group))
        per_output = _per_output(group, role)
        made["weight"] = DoraDelta(kind, made["weight"], group.roles[role], per_output)
        return made

    kind = name.removesuffix("_peft")
    return AdapterType(name, title, base.required | {role}, base.optional, build, base.one_of)


def _per_output(group: Group, role: str) -> bool:
    """Whether the magnitudes are of outputs; ``ShapeMismatchError`` where they are of neither side."""
    shape, (out, into) = group.roles[role].shape, group.weight[:2]
    if role == "magnitude":
        if prod(shape) != out:
            raise group.misfit(role, (out,))
        return True
    per_output = bool(shape) and shape[0] == out and prod(shape) == out
    if not per_output and (shape[:2] != (1, into) or prod(shape) != into):
        raise group.misfit(role, f"({out}, 1) or (1, {into})")
    return per_output


TYPES = (
    over(lora.TYPE, "dora_scale", "dora", "DoRA"),
    over(lora.TYPE, "magnitude", "dora_peft", "DoRA (PEFT)"),
    over(loha.TYPE, "dora_scale", "loha+dora", "LoHa with DoRA"),
    over(lokr.TYPE, "dora_scale", "lokr+dora", "LoKr with DoRA"),
)
