"""LoHa: ``dW = (alpha / rank) * (w1_a @ w1_b) * (w2_a @ w2_b)``, the inner star being elementwise.

FedPara, Hyeon-Woo et al. 2021 (arXiv 2108.06098), as in LyCORIS and PEFT, which store the same tensors under the same
names. Stored shapes: w1_a and w2_a (out, rank), w1_b and w2_b (rank, in * kernel area); OneTrainer keeps convolutions'
factors 4-D, (out, rank, 1, 1) and (rank, in, k, k). Tucker form (``hada_t1``, ``hada_t2``: ``use_tucker`` of LyCORIS,
``use_effective_conv2d`` of PEFT): t (rank, rank, k, k), w_a (rank, out), w_b (rank, in).

LyCORIS applies the scale once when it trains, and twice in ``get_merged_weight`` (3.4 and before); training is what the
tensors were made for.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .base import AdapterType, AdditiveDelta, Delta, Group
from .matrix import Matrix, product, sizes, tucker


class LohaDelta(AdditiveDelta):
    """An elementwise product of two low-rank matrices: of a rank up to rank squared, so it is no product of factors."""

    type = "loha"

    def __init__(self, first: Matrix, second: Matrix, scale: float) -> None:
        self.first, self.second, self.scale = first, second, scale
        self.tensors = (*first.tensors, *second.tensors)
        self.rank = first.rank

    def difference(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        return self.first.load(device, dtype).mul_(self.second.load(device, dtype)).mul_(self.scale)


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta; a Tucker form has both cores."""
    out, inner = sizes(group)
    cores = [role for role in ("hada_t1", "hada_t2") if role in group.roles]
    if len(cores) == 1:
        raise group.misfit(cores[0], "hada_t1 and hada_t2, or neither")
    if cores:
        first = tucker(group, "hada_w1_a", "hada_w1_b", "hada_t1", out, inner)
        second = tucker(group, "hada_w2_a", "hada_w2_b", "hada_t2", out, inner)
    else:
        first = product(group, "hada_w1_a", "hada_w1_b", out, inner)
        second = product(group, "hada_w2_a", "hada_w2_b", out, inner)
    assert first.rank is not None
    return {"weight": LohaDelta(first, second, group.scale_of(first.rank))}


TYPE = AdapterType(
    "loha",
    "LoHa",
    required=frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
    optional=frozenset({"hada_t1", "hada_t2"}),
    build=build,
)
