"""Where a model family has the modules of a library's model."""

from __future__ import annotations

from ...architectures import Location
from ...types import DENOISER, ModuleKey, Target
from ..denoiser import Denoiser
from .planning import Place, PlaceOf


def location_of(denoiser: Denoiser, component: str, path: str) -> Location | None:
    """The family's module, or rows of one. Its own tables are asked first: they know rows, ``path_of`` does not."""
    own = denoiser.architecture.component(component)
    if own is None:
        return None
    if path in own.paths:
        return own.paths[path]
    canonical = denoiser.path_of(component, path)
    return Location(canonical) if canonical is not None and canonical in own.modules else None


def target_of(component: str, location: Location) -> Target:
    """The weight, or rows of it."""
    return Target(ModuleKey(component, location.path), "weight", location.slice)


def name_of(denoiser: Denoiser, component: str, path: str) -> str:
    """What files of the family may call a module: the library's path where they know it."""
    own = denoiser.architecture.component(component)
    return path if own and path in own.paths else denoiser.path_of(component, path) or path


def places(denoiser: Denoiser, component: str) -> PlaceOf:
    """For planning; blocks are the denoiser's."""

    def place_of(path: str) -> Place | None:
        location = location_of(denoiser, component, path)
        if location is None:
            return None
        block = denoiser.architecture.block(ModuleKey(component, location.path))
        return Place(location.path, block if component == DENOISER else "", _name(denoiser, component, location, path))

    return place_of


def _name(denoiser: Denoiser, component: str, location: Location, path: str) -> str:
    """Of a module for random numbers: whatever library made the model, a seed gives the same adapter.

    It is diffusers' name where there is one, and without what transformers 5 left out of the names of CLIPs.
    """
    own = denoiser.architecture.component(component)
    module = own.modules.get(location.path) if own and location.slice is None else None
    return ((module.diffusers if module else "") or path).removeprefix("text_model.")
