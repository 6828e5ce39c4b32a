"""Tables of names that are paths with dots below a prefix; most formats differ only in which prefixes and paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..architectures import Architecture, Component, Location
from ..types import DENOISER
from .base import Located, Names

Paths = Callable[[Component], Mapping[str, Location]]
Prefixes = Callable[[Component], Iterable[str]]


def every_path(component: Component) -> Mapping[str, Location]:
    return component.paths


def diffusers_paths(component: Component) -> Mapping[str, Location]:
    return component.diffusers


def own_paths(component: Component) -> Mapping[str, Location]:
    """The model's own names, and those of other programs than diffusers."""
    return {**component.others, **component.native}


def table(architecture: Architecture, prefixes: Prefixes, paths: Paths) -> Names:
    """prefix + path -> place, for all components. Where two prefixes give one name, the first component keeps it."""
    names: dict[str, Located] = {}
    for component in architecture.components:
        places = [(path, Located.of(component.name, location)) for path, location in paths(component).items()]
        for prefix in prefixes(component):
            for path, located in places:
                names.setdefault(prefix + path, located)
    return names


def pipeline_prefix(component: Component) -> Iterable[str]:
    """``unet.``, ``transformer.``, ``text_encoder.``: the folders of a diffusers pipeline."""
    return (f"{component.diffusers_prefix}.",)


def pipeline_or_bare(component: Component) -> Iterable[str]:
    """The same; a denoiser's names also stand alone."""
    return ("", *pipeline_prefix(component)) if component.name == DENOISER else pipeline_prefix(component)
