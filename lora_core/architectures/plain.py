"""Transformers that are one stack of equal blocks, from the rows of a block.

For families whose own names are diffusers', or nearly: what differs is a table. Such a family is a row of sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..types import Shape
from .spec import Component, Location, Module, transformer

# (path, shapes)
Rows = Iterable[tuple[str, Mapping[str, Shape]]]
NONE: Mapping[str, str] = {}
UNFUSED: Mapping[str, tuple[str, ...]] = {}


def build(
    outside: Rows,
    block: Rows,
    stack: str,
    layers: int,
    *,
    names: Mapping[str, str] = NONE,
    fused: Mapping[str, tuple[str, ...]] = UNFUSED,
) -> Component:
    """The denoiser component.

    Args:
        outside: modules outside blocks.
        block: modules of one block; a path ``""`` is the block itself, with parameters of its own.
        stack: name of the blocks, ``"transformer_blocks"``.
        layers: how many there are.
        names: path -> diffusers path where it differs, of modules outside blocks and, without the block's name, inside.
        fused: diffusers' name of a fused layer in a block -> the layers of ours that it stands for, in order.
    """
    modules = {path: Module(path, shapes, names.get(path, path)) for path, shapes in outside}
    aliases: dict[str, Location] = {}
    rows = tuple(block)
    for index in range(layers):
        stem = f"{stack}.{index}"
        for inner, shapes in rows:
            path, diffusers = _below(stem, inner), _below(stem, names.get(inner, inner))
            modules[path] = Module(path, shapes, diffusers, f"block{index:02d}")
        for name, parts in fused.items():
            first, *rest = (Location(f"{stem}.{part}") for part in parts)
            aliases[f"{stem}.{name}"] = first._replace(more=tuple(rest))
    return transformer(
        modules,
        aliases=aliases,
    )


def _below(stem: str, inner: str) -> str:
    return f"{stem}.{inner}" if inner else stem
