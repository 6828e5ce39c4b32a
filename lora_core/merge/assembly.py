"""Tensors under other names, put together as a checkpoint has them.

Diffusers cuts fused matrices apart, swaps halves and renames; trainers and the authors of a model have names of their
own. An architecture says for each of these names which rows of which module it stands for. Here the tensors of a file
become pieces of the checkpoint's tensors: ``[to_q; to_k; to_v]`` is the ``qkv`` that patches are made for.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from ..architectures import Architecture, Component, Location
from ..architectures.spec import parameter_name, sliced_shape
from ..errors import CorruptFileError
from ..io import TensorRef
from ..io.dtypes import itemsize
from ..types import ModuleKey, Shape, Slice, Target
from .source import Piece, Stored

# Parameters that layers have; any other is one of a module that other libraries have no module for.
_OF_LAYERS = ("weight", "bias")

Pieces = dict[str, list[Piece]]


def named(
    component: Component, paths: Mapping[str, Location], among: Container[str] | None = None
) -> Iterator[tuple[str, list[Target], Shape]]:
    """(name, where its rows lie, shape) of every parameter of these paths, under each name that it may have.

    Args:
        among: only under these names; with few of them it is much quicker.
    """
    for path, location in paths.items():
        first = component.modules[location.path]
        for parameter in first.shapes:
            names = [parameter_name(path, name) for name in (parameter, *first.also.get(parameter, ()))]
            if parameter not in _OF_LAYERS and len(first.shapes) == 1:
                # Wan's ``blocks.0.modulation`` is a parameter ``blocks.0.scale_shift_table`` in diffusers.
                names.append(path)
            there = names if among is None else [name for name in names if name in among]
            if not there:  # of most families that a file is compared with
                continue
            modules = [component.modules[part.path] for part in location.parts]
            shapes = [
                sliced_shape(module.shapes[parameter], part.slice) if part.slice else module.shapes[parameter]
                for module, part in zip(modules, location.parts, strict=True)
            ]
            shape = (sum(part[0] for part in shapes), *shapes[0][1:]) if len(shapes) > 1 else shapes[0]
            targets = [Target(ModuleKey(component.name, part.path), parameter, part.slice) for part in location.parts]
            for name in there:
                yield name, targets, shape


def fitting(component: Component, found: Mapping[str, TensorRef], paths: Mapping[str, Location]) -> int:
    """How many of the component's parameters are there with all their rows, in the architecture's shape."""
    rows: dict[Target, int] = {}
    for name, targets, shape in named(component, paths, found):
        if found[name].shape == shape:
            for target in targets:
                length = target.slice.length if target.slice else _rows(component, target)
                rows[target.whole] = rows.get(target.whole, 0) + length
    return sum(length >= _rows(component, target) for target, length in rows.items())


def _rows(component: Component, target: Target) -> int:
    shape = component.modules[target.module.path].shapes[target.parameter]
    return shape[0] if shape else 1


def assembled(
    component: Component, found: Mapping[str, TensorRef], architecture: Architecture, paths: Mapping[str, Location]
) -> tuple[Pieces, dict[str, TensorRef]]:
    """Checkpoint key -> pieces of it, and the tensors of ``found`` that are none."""
    pieces: Pieces = {}
    rest = dict(found)
    for name, targets, _ in named(component, paths, found):
        if (ref := rest.pop(name, None)) is None:
            continue
        start = 0
        for target in targets:
            place, shape = architecture.place(target), architecture.shape(target)
            assert place is not None
            assert shape is not None
            rows = None
            if len(targets) > 1:
                rows = Slice(0, start, shape[0])
                start += shape[0]
            if place.slice is not None or place.key not in pieces:  # a tied embedding may be there twice
                pieces.setdefault(place.key, []).append(Piece(ref, place.slice, place.transposed, rows))
    return pieces, rest


def tensors_of(label: str, component: Component, pieces: Mapping[str, list[Piece]]) -> dict[str, Stored]:
    """The checkpoint's tensors.

    Raises:
        CorruptFileError: of a fused matrix only parts are there.
    """
    lengths = _lengths(component)
    return {key: _stored(label, key, made_of, lengths.get(key)) for key, made_of in pieces.items()}


def _lengths(component: Component) -> dict[str, int]:
    """Key of a fused tensor of the checkpoint -> its length along the dimension of its slices."""
    lengths: dict[str, int] = {}
    for location in (*component.diffusers.values(), *component.others.values()):
        for part in location.parts:
            if part.slice is not None:
                for parameter, shape in component.modules[part.path].shapes.items():
                    lengths[component.place(part.path, parameter).key] = shape[part.slice.dim]
    for place in component.places.values():
        if place.slice is not None:
            lengths[place.key] = max(lengths.get(place.key, 0), place.slice.start + place.slice.length)
    return lengths


def _stored(label: str, key: str, pieces: list[Piece], length: int | None) -> Stored:
    """The checkpoint's tensor of these pieces; ``length`` of a fused one along the dimension of its slices."""
    first = pieces[0]
    shape = first.ref.shape if first.rows is None else sliced_shape(first.ref.shape, first.rows)
    shape = shape[::-1] if first.transposed else shape
    if first.slice is not None and length is not None:
        if sum(piece.slice.length for piece in pieces if piece.slice) != length:
            raise CorruptFileError(label, f"parts of {key} are missing: {len(pieces)} are there")
        shape = (*shape[: first.slice.dim], length, *shape[first.slice.dim + 1 :])
    widest = max((piece.ref.dtype for piece in pieces), key=itemsize)
    return Stored(shape, widest, tuple(pieces))
