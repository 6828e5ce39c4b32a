"""IA3: the weight times one number per output or per input. Liu et al. 2022 (arXiv 2205.05638).

LyCORIS stores the number less one, ``W' = W * (1 + strength * weight)``, as ``weight`` (n,) or (1, n, 1, 1), which is
the role ``ia3_weight``, and ``on_input``, 1 or 0. PEFT stores the number itself, ``W' = W * (1 + strength * (l - 1))``,
as ``ia3_l``: (1, in) or (out, 1) of linear layers, (1, n, 1, 1) of convolutions; on outputs the module's bias is
multiplied too, as it is what leaves the layer that PEFT scales. (LyCORIS leaves the bias alone.)

The side is told by the sizes; of a weight with as many outputs as inputs by ``on_input``, in PEFT by the shape. PEFT's
convolutions with as many outputs as inputs do not say it at all: outputs, which is what every layer that its
configuration does not list as feed-forward has.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..io import TensorRef
from .base import AdapterType, Delta, Group


class Ia3Delta(Delta):
    """A factor on each output or input.

    Args:
        numbers: one per output or input.
        one: what of them stands for no change: 0 (LyCORIS) or 1 (PEFT).
        dim: 0 for outputs, 1 for inputs.
        start: of the numbers, where this is the change of some rows alone.
    """

    type = "ia3"

    def __init__(self, numbers: TensorRef, one: float, dim: int, start: int = 0) -> None:
        self.numbers, self.one, self.dim, self.start = numbers, one, dim, start
        self.tensors = (numbers,)

    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        if strength == 0:
            return weight.clone()
        numbers = self.numbers.load(weight.device, weight.dtype).flatten()
        numbers = numbers.narrow(0, self.start, weight.shape[self.dim]) - self.one
        shape = [1] * weight.dim()
        shape[self.dim] = -1
        return weight * (1 + strength * numbers.reshape(shape))

    def rows(self, start: int, length: int) -> Delta:
        first = self.start + start if self.dim == 0 else self.start
        return Ia3Delta(self.numbers, self.one, self.dim, first)


def build(group: Group) -> Mapping[str, Delta]:
    """LyCORIS's delta of the weight."""
    ref = group.roles["ia3_weight"]
    flag = group.roles.get("on_input")
    if flag is not None and flag.numel != 1:
        raise group.misfit("on_input", "one number")
    out, into = _sides(group, "ia3_weight")
    on_input = ref.numel == into and (ref.numel != out or (flag is not None and flag.item() != 0))
    return {"weight": Ia3Delta(ref, 0.0, int(on_input))}


def build_peft(group: Group) -> Mapping[str, Delta]:
    """PEFT's deltas of the weight and, for outputs, of the bias where there is one."""
    ref = group.roles["ia3_l"]
    out, into = _sides(group, "ia3_l")
    both = ref.numel == out == into
    on_input = ref.shape == (1, into) if both else ref.numel == into
    made: dict[str, Delta] = {"weight": Ia3Delta(ref, 1.0, int(on_input))}
    if not on_input and group.shapes.get("bias") == (out,):
        made["bias"] = Ia3Delta(ref, 1.0, 0)
    return made


def _sides(group: Group, role: str) -> tuple[int, int]:
    """(outputs, inputs) of a weight that this vector fits."""
    shape, weight = group.roles[role].shape, group.weight
    vector = bool(shape) and max(shape) == prod(shape)
    if len(weight) < 2 or not vector or prod(shape) not in weight[:2]:
        raise group.misfit(role, " or ".join(f"({size},)" for size in weight[:2]) or "no such change of this module")
    return weight[0], weight[1]


TYPE = AdapterType("ia3", "IA3", frozenset({"ia3_weight"}), frozenset({"on_input"}), build)
PEFT_TYPE = AdapterType("ia3_peft", "IA3 (PEFT)", frozenset({"ia3_l"}), frozenset(), build_peft)
