"""Diffusers' names of an architecture, held against diffusers' own conversion of checkpoints.

Each row of each parameter gets a number of its own, and diffusers converts a checkpoint of these numbers (one column
wide, so the largest model takes a few megabytes). What comes out under a diffusers name must be the rows that the
architecture says the name stands for, in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from lora_core.architectures import Component, Location
from lora_core.architectures.spec import parameter_name

Rows = dict[str, torch.Tensor]


def numbered(component: Component) -> Rows:
    """``path.parameter`` -> numbers of its rows, shape (rows, 1) or, where the parameter is a vector, (rows,)."""
    numbers: Rows = {}
    start = 0
    for path, module in component.modules.items():
        for parameter, shape in module.shapes.items():
            rows = torch.arange(start, start + shape[0])
            numbers[parameter_name(path, parameter)] = rows if len(shape) == 1 else rows[:, None]
            start += shape[0]
    return numbers


def check(
    component: Component,
    convert: Callable[[Rows], Rows],
    inventory: Mapping[str, Sequence[int]],
    *,
    original: Callable[[str], str] = str,
) -> None:
    """Every tensor of diffusers' model has a name here, stands for the right rows, and nothing of ours is left out.

    Args:
        convert: diffusers' function from a checkpoint to its model.
        inventory: names and shapes of diffusers' model.
        original: our key -> the name that ``convert`` expects, where that is not the same.
    """
    numbers = numbered(component)
    made = convert({original(key): rows.clone() for key, rows in numbers.items()})
    assert made.keys() == inventory.keys()
    reached: set[int] = set()
    for key, rows in made.items():
        path, _, parameter = key.rpartition(".")
        if path in component.diffusers:
            parts = component.diffusers[path].parts
            assert _shape(component, parts, parameter) == tuple(inventory[key]), key
            expected = torch.cat([_rows(component, numbers, part, parameter) for part in parts])
        else:  # a parameter without a module of its own; its name here is another
            module = component.modules[component.diffusers[key].path]
            ((parameter, shape),) = module.shapes.items()
            assert torch.Size(shape).numel() == torch.Size(inventory[key]).numel(), key
            expected = numbers[parameter_name(module.path, parameter)]
        assert torch.equal(expected.flatten(), rows.flatten()), key
        reached.update(rows.flatten().tolist())
    assert len(reached) == sum(rows.shape[0] for rows in numbers.values())


def meta(model: Callable[[], torch.nn.Module]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model that is built without memory."""
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in model().state_dict().items()}


def _own(component: Component, path: str, parameter: str) -> str:
    """Our name of a parameter that diffusers may call otherwise."""
    module = component.modules[path]
    return next(own for own in module.shapes if parameter in (own, *module.also.get(own, ())))


def _rows(component: Component, numbers: Rows, part: Location, parameter: str) -> torch.Tensor:
    rows = numbers[parameter_name(part.path, _own(component, part.path, parameter))]
    if part.slice is None:
        return rows
    assert part.slice.dim == 0
    return rows[part.slice.start : part.slice.start + part.slice.length]


def _shape(component: Component, parts: Sequence[Location], parameter: str) -> tuple[int, ...]:
    """The shape of the parts one below the other."""
    shapes = [component.modules[part.path].shapes[_own(component, part.path, parameter)] for part in parts]
    lengths = [part.slice.length if part.slice else shape[0] for part, shape in zip(parts, shapes, strict=True)]
    assert len({shape[1:] for shape in shapes}) == 1
    return (sum(lengths), *shapes[0][1:])
