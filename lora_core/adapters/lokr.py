"""LoKr: ``dW = (alpha / rank) * kron(w1, w2)``, each of the two whole or as factors.

KronA, Edalati et al. 2022 (arXiv 2212.10650), as in LyCORIS and PEFT, which store the same tensors under the same
names. For a weight (a * c, b * d, kernel...): w1 (a, b), or w1_a (a, rank) and w1_b (rank, b); w2 (c, d, kernel...), or
w2_a (c, rank) and w2_b (rank, d * kernel area), or in Tucker form t2 (rank, rank, kernel...), w2_a (rank, c),
w2_b (rank, d). The sizes of w1 decide how the weight divides.

The rank is that of w2's factors, else of w1's. Where both are whole there is none: LyCORIS then takes a scale of 1
whatever alpha says (files hold an alpha and a rank of 100000), and so do we; PEFT applies the scale of its
configuration even so, and where the file states one (``Group.scale``) so do we.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..types import Shape
from .base import AdapterType, AdditiveDelta, Delta, Group
from .matrix import Matrix, product, sizes, tucker, whole


class LokrDelta(AdditiveDelta):
    """A Kronecker product."""

    type = "lokr"

    def __init__(self, left: Matrix, right: Matrix, scale: float) -> None:
        self.left, self.right, self.scale = left, right, scale
        self.tensors = (*left.tensors, *right.tensors)
        self.rank = right.rank or left.rank

    def difference(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        # Flattened, w2 is (c, d * area): the product's columns are then in the weight's order too, (b, d, area). The
        # scale goes to the small factor, the large product is made once.
        return torch.kron(self.left.load(device, dtype) * self.scale, self.right.load(device, dtype))


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta: w1 has to divide the weight, w2 to be what remains."""
    out, inner = sizes(group)
    left = _left(group, out, inner)
    rows, columns = left.tensors[0].shape[0], prod(left.tensors[-1].shape[1:])
    c, remaining = out // rows, (inner[0] // columns, *inner[1:])
    if inner[0] % columns:
        remaining = (prod(inner) // columns,)
    if "lokr_w2" in group.roles:
        right = whole(group, "lokr_w2", c, remaining)
    elif "lokr_t2" in group.roles:
        right = tucker(group, "lokr_w2_a", "lokr_w2_b", "lokr_t2", c, remaining)
    else:
        right = product(group, "lokr_w2_a", "lokr_w2_b", c, remaining)
    rank = right.rank or left.rank
    unranked = 1.0 if group.scale is None else group.scale
    return {"weight": LokrDelta(left, right, group.scale_of(rank) if rank else unranked)}


def _left(group: Group, out: int, inner: Shape) -> Matrix:
    """w1, whose number of rows divides the weight's outputs and whose number of columns its inputs.

    The first LoKr of LyCORIS (1.4) gave each factor one side of a convolution's kernel: w1 (a, b * kernel), w2
    (c, d * kernel), and read the product as a weight, row by row.
    """
    first, last = ("lokr_w1", "lokr_w1") if "lokr_w1" in group.roles else ("lokr_w1_a", "lokr_w1_b")
    up, down = group.roles[first].shape, group.roles[last].shape
    rows, columns = (up[0] if len(up) > 1 else 0), prod(down[1:])
    if rows == 0 or out % rows:
        raise group.misfit(first, f"a number of rows that divides {out}")
    first_lokr = "lokr_w2_b" in group.roles and "lokr_t2" not in group.roles and prod(inner) % max(columns, 1) == 0
    if columns == 0 or len(down) < 2 or (inner[0] % columns and not first_lokr):
        raise group.misfit(last, f"a number of columns that divides {inner[0]}")
    return whole(group, first, rows, (columns,)) if first == last else product(group, first, last, rows, (columns,))


TYPE = AdapterType(
    "lokr",
    "LoKr",
    required=frozenset(),
    optional=frozenset(),
    build=build,
    one_of=(
        (frozenset({"lokr_w1"}), frozenset({"lokr_w1_a", "lokr_w1_b"})),
        (
            frozenset({"lokr_w2"}),
            frozenset({"lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
            frozenset({"lokr_w2_a", "lokr_w2_b"}),
        ),
    ),
)
