"""The family of a model that is loaded, from the names and shapes of its parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..types import Shape
from . import ARCHITECTURES
from .spec import Architecture, Component, Module

# The projections of the text condition are 8 % of the modules of SD 1.5, and more of the others, so a model with
# another width of it (SD 2.1) stays below; a variant may have a few layers of another size.
SHARE = 0.95
# Text encoders may come without their last layers, which have no effect: FLUX.2's Mistral with 30 of 40.
ENCODER_SHARE = 0.7
# Modules of a component that are looked at first; where less than half of these few fit, the rest cannot make up.
PROBES = 16


def recognise(shapes: Mapping[str, Shape], parts: Collection[str]) -> Architecture | None:
    """The family that a model is of, or None.

    Its family has every one of the parts, and of each nearly all modules are there, with their shapes. Families
    share text encoders, and variants nearly all: the one with most fitting modules is meant, of equals the one that
    misses fewest, then the first in the table.

    Args:
        shapes: ComfyUI's key -> shape of that parameter: ``{"diffusion_model.out.2.weight": (4, 320, 3, 3)}``.
        parts: what there is of the model, the first words of keys: ``{"diffusion_model", "clip_l"}``. A text encoder
            that is not connected does not count; one that no family has makes the model unknown.
    """
    best: tuple[int, int] = (0, 0)
    found: Architecture | None = None
    for row in ARCHITECTURES:
        fit = _fit(row, shapes, parts)
        if fit > best:
            best, found = fit, row
            if fit[1] == 0 and _complete(row, shapes, parts):
                break
    return found


def part_of(component: Component) -> str:
    """The first word of a component's keys in ComfyUI: ``diffusion_model``, ``t5xxl``."""
    return component.host_prefix.partition(".")[0]


def _fit(row: Architecture, shapes: Mapping[str, Shape], parts: Collection[str]) -> tuple[int, int]:
    """How many modules of all parts fit, and minus how many do not; (0, 0) where a part is not this family's."""
    components = {part_of(component): component for component in row.components}
    if not parts or not components.keys() >= set(parts):
        return 0, 0
    total = missing = 0
    for component in map(components.__getitem__, parts):
        modules = tuple(component.modules.values())
        probes = modules[:: max(1, len(modules) // PROBES)]
        if 2 * _fitting(component, probes, shapes) < len(probes):
            return 0, 0
        fitting = _fitting(component, modules, shapes)
        if fitting < (ENCODER_SHARE if component.encoder else SHARE) * len(modules):
            return 0, 0
        total += fitting
        missing += len(modules) - fitting
    return total, -missing


def _complete(row: Architecture, shapes: Mapping[str, Shape], parts: Collection[str]) -> bool:
    """Whether no row after this one can fit better: each parameter of the denoiser is one of this family's.

    That spares most models the building of all families. Of text encoders alone it is enough that the family has no
    other one; the host keeps more in them than we describe (a scale of logits, positions).
    """
    denoiser = next((component for component in row.components if not component.encoder), None)
    if denoiser is None or part_of(denoiser) not in parts:
        return {part_of(component) for component in row.components if component.encoder} == set(parts)
    described = sum(len(module.shapes) for module in denoiser.modules.values())
    return described == sum(key.startswith(denoiser.host_prefix) for key in shapes)


def _fitting(component: Component, modules: Collection[Module], shapes: Mapping[str, Shape]) -> int:
    """How many of the modules are there; one parameter of a module stands for all."""
    prefix = component.host_prefix
    return sum(
        any(shapes.get(prefix + key) == shape for key in module.keys(parameter))
        for module in modules
        for parameter, shape in (next(iter(module.shapes.items())),)
    )
