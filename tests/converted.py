"""Diffusers' names of an architecture, held against diffusers' own conversion of checkpoints.

Each row of each parameter gets a number of its own, and diffusers converts a checkpoint of these numbers (one column
wide, so the largest model takes a few megabytes). What comes out under a diffusers name must be the rows that the
architecture says the name stands for, in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from lora_core.architectures import Component, Location

Rows = dict[str, torch.Tensor]


def numbered(component: Component) -> Rows:
    """``path.parameter`` -> numbers of its rows, shape (rows, 1) or, where the parameter is a vector, (rows,)."""
    numbers: Rows = {}
    start = 0
    for path, module in component.modules.items():
        for parameter, shape in module.shapes.items():
            rows = torch.arange(start, start + shape[0])
            numbers[f"{path}.{parameter}" if path else parameter] = rows if len(shape) == 1 else rows[:, None]
            start += shape[0]
    return numbers


def check(
    component: Component,
    convert: Callable[[Rows], Rows],
    inventory: Mapping[str, list[int]],
    *,
    renamed: Mapping[str, str] | None = None,
    original: Callable[[str], str] = str,
) -> None:
    """Every tensor of diffusers' model has a name here, stands for the right rows, and nothing of ours is left out.

    Args:
        convert: diffusers' function from a checkpoint to its model.
        inventory: names and shapes of diffusers' model.
        renamed: diffusers key -> our ``path.parameter``, for parameters that have another name there.
        original: our key -> the name that ``convert`` expects, where that is not the same.
    """
    renamed = renamed or {}
    numbers = numbered(component)
    converted = convert({original(key): rows.clone() for key, rows in numbers.items()})
    assert {key: rows.shape[0] for key, rows in converted.items()} == {
        key: shape[0] for key, shape in inventory.items()
    }
    reached: set[int] = set()
    for key, rows in converted.items():
        path, _, parameter = key.rpartition(".")
        if key in renamed:
            expected, full = numbers[renamed[key]], inventory[key]
        else:
            parts = component.diffusers[path].parts
            expected = torch.cat([_part(numbers[f"{part.path}.{parameter}"], part) for part in parts])
            full = _shape(component, parts, parameter)
        assert torch.equal(expected, rows), key
        assert list(full) == list(inventory[key]), key
        reached.update(rows.flatten().tolist())
    assert len(reached) == sum(rows.shape[0] for rows in numbers.values())


def _part(rows: torch.Tensor, part: Location) -> torch.Tensor:
    if part.slice is None:
        return rows
    assert part.slice.dim == 0
    return rows[part.slice.start : part.slice.start + part.slice.length]


def _shape(component: Component, parts: tuple[Location, ...], parameter: str) -> tuple[int, ...]:
    shapes = [component.modules[part.path].shapes[parameter] for part in parts]
    lengths = [part.slice.length if part.slice else shape[0] for part, shape in zip(parts, shapes, strict=True)]
    assert len({shape[1:] for shape in shapes}) == 1
    return (sum(lengths), *shapes[0][1:])
