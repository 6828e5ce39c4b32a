"""HRA: inputs are reflected, ``W' = W (I - 2 u1 u1^T) (I - 2 u2 u2^T) ...``.

Yuan et al. 2024 (arXiv 2405.17484), PEFT. Stored: ``hra_u`` (in * kernel area, r), whose columns divided by their norms
are the u; the weight is flattened from dimension 1 on. With ``apply_GS`` in PEFT's configuration the columns are first
made orthogonal to those before them (Gram and Schmidt). PEFT has no strength for HRA.
Source: PEFT, ``tuners/hra/layer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..io import TensorRef
from .base import AdapterType, Delta, Group
from .orthogonal import RotationDelta


class HraDelta(RotationDelta):
    """Reflected inputs.

    Args:
        directions: the columns.
        orthogonal: whether they are made so.
    """

    type = "hra"

    def __init__(self, directions: TensorRef, orthogonal: bool) -> None:
        self.directions, self.tensors = directions, (directions,)
        self.orthogonal = orthogonal
        self.rank = directions.shape[1]

    def rotate(self, weight: torch.Tensor, start: int = 0) -> torch.Tensor:
        reflected = weight.flatten(1)
        before: list[torch.Tensor] = []
        for column in self.directions.load(weight.device, weight.dtype).T:
            for other in before if self.orthogonal else ():
                column = column - (other @ column) * other
            # A column of zeros has no direction and reflects nothing.
            direction = column / column.square().sum().sqrt().clamp(min=torch.finfo(weight.dtype).tiny)
            before.append(direction)
            reflected = torch.addr(reflected, reflected @ direction, direction, alpha=-2.0)
        return reflected.reshape(weight.shape)

    def apart(self, row: int) -> bool:
        return True


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta from the role hra_u."""
    directions = group.roles["hra_u"]
    inputs = prod(group.weight[1:])
    if len(group.weight) < 2 or len(directions.shape) != 2 or directions.shape[0] != inputs or not directions.shape[1]:
        raise group.misfit("hra_u", (inputs, "rank"))
    settings = group.settings or {}
    return {"weight": HraDelta(directions, orthogonal=settings.get("apply_GS") is True)}


TYPE = AdapterType("hra", "HRA", frozenset({"hra_u"}), frozenset(), build)
