"""The family of a model that is loaded, from the names and shapes of its parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

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
# The first word of a denoiser's keys.
DENOISER_PART = "diffusion_model"


def recognise(shapes: Mapping[str, Shape], parts: Collection[str]) -> Architecture | None:
    """The family that a model is of, or None.

    The denoiser decides: nearly all of the family's modules are there, with their shapes. Families share denoisers,
    and variants nearly all: the one with most fitting modules is meant, of equals the one that misses fewest, then the
    one whose text encoders are at hand, then the first in the table. Without a denoiser the text encoders decide
    alone, and the family is meant that has no other ones; where several have the same ones, only the LoRA can tell
    (``parts_of``).

    Args:
        shapes: ComfyUI's key -> shape of that parameter: ``{"diffusion_model.out.2.weight": (4, 320, 3, 3)}``.
        parts: what there is of the model, the first words of keys: ``{"diffusion_model", "clip_l"}``. Text encoders
            that the family does not have are no hindrance.
    """
    best: tuple[int, ...] = ()
    found: Architecture | None = None
    for row in ARCHITECTURES:
        fits = _fits(row, shapes, parts)
        score = _score(row, fits, parts)
        if score > best:
            best, found = score, row
            if (
                fits.keys() == set(parts)
                and not any(fit.missing for fit in fits.values())
                and _complete(row, shapes, parts)
            ):
                break
    return found


def parts_of(row: Architecture, shapes: Mapping[str, Shape], parts: Collection[str]) -> frozenset[str]:
    """The parts at hand that are this family's, with its shapes; its LoRAs change these and no others."""
    return frozenset(_fits(row, shapes, parts))


def encoders_of(row: Architecture) -> frozenset[str]:
    """ComfyUI's names of the family's text encoders."""
    return frozenset(part_of(component) for component in row.components if component.encoder)


def nearest(shapes: Mapping[str, Shape], parts: Collection[str]) -> tuple[Architecture, int, int]:
    """For messages about an unknown model: the family of which most modules of these parts are there, how many they
    are, and how many it has. Builds every family."""

    def there(row: Architecture) -> tuple[int, int]:
        modules = [(c, tuple(c.modules.values())) for c in row.components if part_of(c) in parts]
        return sum(_fitting(component, own, shapes) for component, own in modules), sum(len(own) for _, own in modules)

    row = max(ARCHITECTURES, key=lambda row: there(row)[0])
    return row, *there(row)


def part_of(component: Component) -> str:
    """The first word of a component's keys in ComfyUI: ``diffusion_model``, ``t5xxl``."""
    return component.host_prefix.partition(".")[0]


class _Fit(NamedTuple):
    """How many modules of a component are there, and how many are not."""

    fitting: int
    missing: int


def _fits(row: Architecture, shapes: Mapping[str, Shape], parts: Collection[str]) -> dict[str, _Fit]:
    """The parts that are this family's."""
    found = {part_of(component): _fit(component, shapes) for component in row.components if part_of(component) in parts}
    return {part: fit for part, fit in found.items() if fit is not None}


def _fit(component: Component, shapes: Mapping[str, Shape]) -> _Fit | None:
    """None where it is another family's."""
    modules = tuple(component.modules.values())
    probes = modules[:: max(1, len(modules) // PROBES)]
    if 2 * _fitting(component, probes, shapes) < len(probes):
        return None
    fitting = _fitting(component, modules, shapes)
    enough = fitting >= (ENCODER_SHARE if component.encoder else SHARE) * len(modules)
    return _Fit(fitting, len(modules) - fitting) if enough else None


def _score(row: Architecture, fits: Mapping[str, _Fit], parts: Collection[str]) -> tuple[int, ...]:
    """Larger is better; empty where the model is not of this family."""
    denoiser = next((part_of(component) for component in row.components if not component.encoder), "")
    if not fits or (DENOISER_PART in parts and denoiser not in fits):
        return ()
    main = fits.get(denoiser, _Fit(0, 0))
    rest = [fit for part, fit in fits.items() if part != denoiser]
    fitting, missing = sum(fit.fitting for fit in rest), sum(fit.missing for fit in rest)
    return main.fitting, -main.missing, fitting, -missing, -sum(part_of(c) not in parts for c in row.components)


def _complete(row: Architecture, shapes: Mapping[str, Shape], parts: Collection[str]) -> bool:
    """Whether no row after this one can fit better: each parameter of the denoiser is one of this family's.

    That spares most models the building of all families. Of text encoders alone it is enough that the family has no
    other one; the host keeps more in them than we describe (a scale of logits, positions).
    """
    denoiser = next((component for component in row.components if not component.encoder), None)
    if denoiser is None or part_of(denoiser) not in parts:
        return encoders_of(row) == frozenset(parts)
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
