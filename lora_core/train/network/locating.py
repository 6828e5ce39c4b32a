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
        return Place(location.path, block if component == DENOISER else "")

    return place_of
