"""GLoRA: ``dW = (alpha / rank) * (W @ a1 @ a2 + b1 @ b2)``, a change of the inputs and an additive one.

Chavan et al. 2023 (arXiv 2306.07967), as LyCORIS defines it: a1 (in, rank), a2 (rank, in), b1 (out, rank), b2
(rank, in * kernel area); convolutions store 4-D, with the kernel in b2, and A acts on the channels. LyCORIS at first
stored each pair the other way round, the second of the two names being the left factor: a2 (in, rank), a1 (rank, in),
b2 (out, rank), b1 (rank, in). (ComfyUI reads both, A1111 the first.) The shapes say which it is; where all sizes are
the rank, neither could be told from the other, and it is today's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .base import AdapterType, Delta, Group
from .matrix import Matrix, product, sizes


class GloraDelta(Delta):
    """An additive low-rank change, and one that is a low-rank change of the weight's own inputs.

    Args:
        inputs: A, (in, in).
        added: B, (out, in * kernel area).
        scale: alpha / rank.
        rows: first row and number of rows, where this is the change of some alone.
    """

    type = "glora"

    def __init__(self, inputs: Matrix, added: Matrix, scale: float, rows: tuple[int, int] | None = None) -> None:
        self.inputs, self.added, self.scale, self.part = inputs, added, scale, rows
        self.tensors = (*inputs.tensors, *added.tensors)
        self.rank = added.rank

    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        if strength == 0:
            return weight.clone()
        up, down = (ref.load(weight.device, weight.dtype).flatten(1) for ref in self.inputs.tensors)
        if weight.dim() == 2:
            change = (weight @ up) @ down
        else:
            change = torch.einsum("oi...,ir,rj->oj...", weight, up, down)
        up, down = (ref.load(weight.device, weight.dtype).flatten(1) for ref in self.added.tensors)
        up = up if self.part is None else up.narrow(0, *self.part)
        change = change.flatten(1).addmm(up, down).reshape(weight.shape)
        return torch.add(weight, change, alpha=strength * self.scale)

    def rows(self, start: int, length: int) -> Delta:
        """A acts on inputs, so rows change apart."""
        first = start if self.part is None else self.part[0] + start
        return GloraDelta(self.inputs, self.added, self.scale, (first, length))


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta."""
    out, inner = sizes(group)
    into = inner[0]
    a1, a2, b1, b2 = "a1.weight", "a2.weight", "b1.weight", "b2.weight"
    if _swapped(group):
        a1, a2, b1, b2 = a2, a1, b2, b1
    inputs = product(group, a1, a2, into, (into,))
    added = product(group, b1, b2, out, inner)
    assert added.rank is not None
    return {"weight": GloraDelta(inputs, added, group.scale_of(added.rank))}


def _swapped(group: Group) -> bool:
    """Whether the pairs are stored as LyCORIS did at first: only then is the rank where it was."""
    a1, a2, b1, b2 = (group.roles[f"{name}.weight"].shape[:2] for name in ("a1", "a2", "b1", "b2"))
    if any(len(shape) < 2 for shape in (a1, a2, b1, b2)):
        return False
    now = a1[1] == a2[0] == b1[1] == b2[0]
    before = a1[0] == a2[1] == b1[0] == b2[1]
    return before and not now


TYPE = AdapterType(
    "glora", "GLoRA", frozenset({"a1.weight", "a2.weight", "b1.weight", "b2.weight"}), frozenset(), build
)
