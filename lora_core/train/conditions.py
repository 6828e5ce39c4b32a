"""Conditions of several captions as one, also where they have different lengths.

    rows [{"text": (7, w)}, {"text": (9, w)}]  ->  {"text": (2, 9, w), "text.shape": (2, 2)}

Short ones are filled up with zeros at their ends; where any was, their own shapes stand beside them, so that nothing of
the filling need ever be seen by a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError
from .denoiser import Conditions

_SHAPE = ".shape"


def joined(rows: Sequence[Conditions]) -> dict[str, Tensor]:
    """One row a caption, without the batch's dimension -> all of them.

    Raises:
        ConfigError: rows have different names, or dimensions.
    """
    names = list(rows[0])
    if any(list(row) != names for row in rows):
        fault = f"it gives different conditions for captions of one batch, {[list(row) for row in rows]}"
        raise ConfigError("text encoder", [f"{fault}: set the batch to 1"])
    found: dict[str, Tensor] = {}
    for name in names:
        each = [row[name] for row in rows]
        if all(one.shape == each[0].shape for one in each):
            found[name] = torch.stack(each)
            continue
        if any(one.dim() != each[0].dim() for one in each):
            fault = f"{name} has different dimensions for captions of one batch, {[tuple(one.shape) for one in each]}"
            raise ConfigError("text encoder", [f"{fault}: set the batch to 1"])
        longest = [max(sizes) for sizes in zip(*(one.shape for one in each), strict=True)]
        found[name] = torch.stack([_filled_up(one, longest) for one in each])
        found[name + _SHAPE] = torch.tensor([list(one.shape) for one in each])
    return found


def rows_of(conditions: Conditions) -> list[dict[str, Tensor]]:
    """What ``joined`` was given."""
    names = [name for name in conditions if not (name.endswith(_SHAPE) and name.removesuffix(_SHAPE) in conditions)]
    count = len(conditions[names[0]]) if names else 0
    rows: list[dict[str, Tensor]] = []
    for index in range(count):
        row: dict[str, Tensor] = {}
        for name in names:
            one, shapes = conditions[name][index], conditions.get(name + _SHAPE)
            if shapes is not None:
                one = one[tuple(slice(int(size)) for size in shapes[index])]
            row[name] = one
        rows.append(row)
    return rows


def _filled_up(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    whole = tensor.new_zeros(tuple(shape))
    whole[tuple(slice(size) for size in tensor.shape)] = tensor
    return whole
