"""A family that a model itself tells, for models of no family in the table.

Its modules are the parameters that are there, under the names that the model has for them in its own checkpoint; its
text encoders are those of the family in the table that has the same ones. So whatever a host can run can be trained,
and take what was trained on it; files in the names of other libraries are for families of the table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import replace

from ..types import COMPONENTS, DENOISER, Shape
from . import ARCHITECTURES
from .recognise import DENOISER_PART, encoders_of, part_of, parts_of
from .spec import BASE_BLOCK, Architecture, Component, Module


def own_family(shapes: Mapping[str, Shape], parts: Collection[str]) -> Architecture:
    """The family of a loaded model, in the table by its name from now on (``Registry.remember``).

    Args:
        shapes: ComfyUI's key -> shape, as for ``recognise``.
        parts: as for ``recognise``, with the denoiser among them.
    """
    start = f"{DENOISER_PART}."
    own = {key.removeprefix(start): shape for key, shape in shapes.items() if key.startswith(start)}
    encoders = _encoders(shapes, parts)
    facts = json.dumps([sorted(own.items()), [component.encoder for component in encoders]])
    name = f"own_{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
    if name in ARCHITECTURES:
        return ARCHITECTURES.get(name)
    components = (_denoiser(own), *encoders)
    return ARCHITECTURES.remember(Architecture(name, "this model (of no known family)", lambda: components))


def _denoiser(shapes: Mapping[str, Shape]) -> Component:
    parameters: dict[str, dict[str, Shape]] = {}
    for key, shape in shapes.items():
        path, _, parameter = key.rpartition(".")
        if path:
            parameters.setdefault(path, {})[parameter] = shape
        else:
            parameters[parameter] = {"": shape}
    modules = {path: Module(path, own, "", _block(path)) for path, own in parameters.items()}
    return Component(DENOISER, modules, f"model.{DENOISER_PART}.", ("lora_unet",), "")


def _block(path: str) -> str:
    """``double_blocks.3.img_attn.qkv`` -> ``double_blocks03``; "base" for what is in no list."""
    parts = path.split(".")
    place = next((index for index, part in enumerate(parts) if part.isdigit()), 0)
    return f"{'_'.join(parts[:place])}{int(parts[place]):02d}" if place else BASE_BLOCK


def _encoders(shapes: Mapping[str, Shape], parts: Collection[str]) -> tuple[Component, ...]:
    """Of the family that shares most of what is connected, and of these the one that misses fewest."""

    def shared(row: Architecture) -> tuple[int, int]:
        there = encoders_of(row) & parts_of(row, shapes, parts)
        return len(there), -len(encoders_of(row) - there)

    row = max(ARCHITECTURES, key=shared)
    there = parts_of(row, shapes, parts)
    found = [component for component in row.components if component.encoder and part_of(component) in there]
    return tuple(replace(component, name=name) for name, component in zip(COMPONENTS[1:], found, strict=False))
