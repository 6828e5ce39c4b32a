"""The family of a model that is loaded, from the shapes of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..types import ModuleKey, Shape, Target
from . import ARCHITECTURES
from .spec import Architecture

# The projections of the text condition are 8 % of the modules of SD 1.5, and more of the others, so a model with
# another width of it (SD 2.1) stays below; a variant may have a few layers of another size.
SHARE = 0.95
# Variants have other latents: nine channels go into an inpainting model, eight into one that edits pictures.
FREE = frozenset({"conv_in", "conv_out"})


def recognise(shape_of: Callable[[Target], Shape | None], components: Collection[str]) -> Architecture | None:
    """The family that a model is of, or None.

    Its family has every one of the components, and of each nearly all modules are there, with their shapes. Families
    share text encoders: the one with most fitting modules is meant, and of equals the first in the table.

    Args:
        shape_of: whole target -> shape of that parameter in the model, None where it has none.
        components: what there is of the model; a text encoder that is not connected does not count. Those of no
            known family have names of their own, so that no family has them.
    """
    fits = {row.name: _fitting(row, shape_of, components) for row in ARCHITECTURES}
    name = max(fits, key=lambda name: fits[name])
    return ARCHITECTURES.get(name) if fits[name] else None


def _fitting(row: Architecture, shape_of: Callable[[Target], Shape | None], components: Collection[str]) -> int:
    """Fitting modules of all components; 0 where one of them is not this family's."""
    total = 0
    for name in components:
        component = row.component(name)
        modules = [module for module in component.modules.values() if module.diffusers not in FREE] if component else []
        fitting = sum(shape_of(Target(ModuleKey(name, module.path))) == module.shapes["weight"] for module in modules)
        if fitting < SHARE * len(modules) or not fitting:
            return 0
        total += fitting
    return total
