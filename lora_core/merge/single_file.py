"""Single-file checkpoints: whole ones, and files of one component under the prefixes in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..architectures import ARCHITECTURES, Architecture, Component, Module, Place
from ..architectures.spec import parameter_name, sliced_shape
from ..errors import ConfigError, UnknownCheckpointError
from ..formats import FORMATS
from ..io import TensorFile, TensorRef, TensorSource
from ..quantised import Quantised, find_quantised
from ..types import DENOISER, ModuleKey, Shape, Target
from .assembly import assembled, fitting, named, tensors_of
from .source import Checkpoint, Piece, Stored

# Modules that are looked at before all of a component are.
SAMPLE = 32
# In front of a denoiser whose names are not the model's own.
_PREFIXES = ("", "model.diffusion_model.", "diffusion_model.", "model.", "transformer.")

_NOTHING: tuple[int, dict[Target, Place]] = (0, {})

Layout = Callable[[Component, Module, str], "Place | None"]


def open_file(path: Path, families: Iterable[Architecture] = ARCHITECTURES) -> Checkpoint:
    """Open a safetensors checkpoint and find its architecture among these; errors as ``open_checkpoint``."""
    file = TensorFile(path)
    quantised = find_quantised(file, file.metadata, file.label)
    families = tuple(families)
    best = max((_fit(file, quantised, row) for row in families), key=lambda fit: (fit.score, -fit.missing))
    if not best.recognised:
        hint = _hint(file) or _incomplete(file, quantised, families)
        raise UnknownCheckpointError(file.label, next(iter(file), ""), _titles(), hint)
    tensors = {key: Stored(ref.shape, ref.dtype, (Piece(ref),)) for key, ref in file.items()}
    originals: dict[str, TensorRef] = {}
    for component, prefix in best.renamed.items():
        rows, used = _rows_of(file, best.architecture, component, prefix)
        originals |= used
        tensors = {key: stored for key, stored in tensors.items() if key not in used} | rows
    if hard := originals.keys() & quantised.layers.keys():
        fault = f"{min(hard)} is quantised, under a name that is not the model's own; merge into a file with "
        raise ConfigError(file.label, [f"{fault}{best.architecture.title}'s own names, or that is not quantised"])
    return Checkpoint(
        file.label,
        best.architecture,
        file.metadata,
        tensors,
        best.places,
        {file.label: file.path},
        quantised=_measured(file, quantised, best),
        originals=originals,
    )


def _rows_of(
    file: TensorFile, architecture: Architecture, name: str, prefix: str
) -> tuple[dict[str, Stored], dict[str, TensorRef]]:
    """A component whose file has other names and cuts: tensors under the checkpoint's keys, and what they are of."""
    component = architecture.component(name)
    assert component is not None
    found = _below(file, prefix)
    pieces, rest = assembled(component, found, architecture, component.paths)
    used = {ref.name: ref for key, ref in found.items() if key not in rest}
    return tensors_of(file.label, component, pieces), used


def _below(file: TensorFile, prefix: str) -> dict[str, TensorRef]:
    """The tensors under a prefix, by the rest of their names."""
    return {key[len(prefix) :]: ref for key, ref in file.items() if key.startswith(prefix)}


def _measured(file: TensorSource, quantised: Quantised, fit: _Fit) -> Quantised:
    """The same with the shapes that the architecture knows: padding does not say what it pads."""
    layers = dict(quantised.layers)
    for target, place in fit.places.items():
        layer, shape = layers.get(place.key), fit.architecture.shape(target)
        if layer is None or shape is None or place.slice is not None:
            continue
        if layer.holds(shape, file[place.key].shape):
            layers[place.key] = replace(layer, shape=shape)
    return replace(quantised, layers=layers)


@dataclass(frozen=True, slots=True)
class _Fit:
    """How well a file fits an architecture.

    Args:
        score: parameters that are there with the architecture's shape.
        missing: parameters of its components that are not. Variants that add layers fit their parent's file as well.
        recognised: at least half of one component is there.
        places: where the parameters lie.
        renamed: components that have to be put together of tensors with other names -> the prefix of these.
    """

    architecture: Architecture
    score: int
    missing: int
    recognised: bool
    places: Mapping[Target, Place]
    renamed: Mapping[str, str]


def _fit(file: TensorFile, quantised: Quantised, architecture: Architecture) -> _Fit:
    total, missing, recognised = 0, 0, False
    places: dict[Target, Place] = {}
    renamed: dict[str, str] = {}
    for component in architecture.components:
        score, located = _best(file, quantised, component)
        size = sum(len(module.shapes) for module in component.modules.values())
        if score < size:
            other = max(_renamed(file, component), default=(0, ""))
            if other[0] > score:
                score, prefix = other
                renamed[component.name] = prefix
                located = _assembled_places(architecture, component, _below(file, prefix))
        if score * 2 >= size:
            total += score
            missing += size - score
            recognised = True
            places |= located
        else:
            renamed.pop(component.name, None)
    return _Fit(architecture, total, missing, recognised, places, renamed)


def _best(file: TensorSource, quantised: Quantised, component: Component) -> tuple[int, dict[Target, Place]]:
    """What the best of the layouts finds."""
    layouts = (layout for layout in _LAYOUTS if _likely(file, component, layout))
    located = (_located(file, quantised, component, layout) for layout in layouts)
    return max([*located, _NOTHING], key=lambda fit: fit[0])


def _renamed(file: TensorFile, component: Component) -> Iterator[tuple[int, str]]:
    """(parameters that are there, prefix) under any names that the architecture knows, for each likely prefix."""
    prefixes = _PREFIXES if component.name == DENOISER else ("", component.checkpoint_prefix)
    paths = list(component.paths)
    for prefix in prefixes:
        some = (f"{prefix}{path}" for path in paths[:: max(1, len(paths) // SAMPLE)])
        if any(f"{name}.weight" in file or name in file for name in some):
            yield fitting(component, _below(file, prefix), component.paths), prefix


def _assembled_places(
    architecture: Architecture, component: Component, found: Mapping[str, TensorRef]
) -> dict[Target, Place]:
    """The place of each parameter that can be put together."""
    places: dict[Target, Place] = {}
    for _, targets, _ in named(component, component.paths, found):
        for target in targets:
            place = architecture.place(target.whole)
            assert place is not None
            places[target.whole] = place
    return places


def _likely(file: TensorSource, component: Component, layout: Layout) -> bool:
    """Whether some of a few modules, spread over the component, are there; dozens of families are looked at."""
    modules = list(component.modules.values())
    places = (
        layout(component, module, parameter)
        for module in modules[:: max(1, len(modules) // SAMPLE)]
        for parameter in module.shapes
    )
    return any(place is not None and place.key in file for place in places)


def _located(
    file: TensorSource, quantised: Quantised, component: Component, layout: Layout
) -> tuple[int, dict[Target, Place]]:
    """Parameters with the right shape, and the place of each parameter that the file has."""
    score = 0
    places: dict[Target, Place] = {}
    for module, parameter, shape in _parameters(component):
        names = (parameter, *module.also.get(parameter, ()))
        found = (layout(component, module, name) for name in names)
        place = next((place for place in found if place is not None and place.key in file), None)
        if place is not None:
            stored = file[place.key].shape
            if layer := quantised.layers.get(place.key):
                stored = shape if layer.holds(shape, stored) else layer.shape
            if place.slice is not None:
                stored = sliced_shape(stored, place.slice) if len(stored) > place.slice.dim else ()
            # A variant may have a layer of another width (inpainting models: nine input channels).
            score += (stored[::-1] if place.transposed else stored) == shape
            places[Target(ModuleKey(component.name, module.path), parameter)] = place
    return score, places


def _parameters(component: Component) -> Iterator[tuple[Module, str, Shape]]:
    for module in component.modules.values():
        for parameter, shape in module.shapes.items():
            yield module, parameter, shape


def _checkpoint(component: Component, module: Module, parameter: str) -> Place | None:
    return component.place(module.path, parameter)


def _old_clip(component: Component, module: Module, parameter: str) -> Place | None:
    """Early SD 1 checkpoints and merges of them: the text encoder without its ``text_model`` level."""
    path = module.path.removeprefix("text_model.")
    return Place(f"{component.checkpoint_prefix}{parameter_name(path, parameter)}") if path != module.path else None


def _prefixed_denoiser(component: Component, module: Module, parameter: str) -> Place | None:
    """A denoiser alone, as ComfyUI's UNet files have it."""
    return Place(f"diffusion_model.{parameter_name(module.path, parameter)}") if component.name == DENOISER else None


def _net(component: Component, module: Module, parameter: str) -> Place | None:
    """A denoiser alone, as NVIDIA's Cosmos files and those of its descendant Anima have it."""
    return Place(f"net.{parameter_name(module.path, parameter)}") if component.name == DENOISER else None


def _bare(component: Component, module: Module, parameter: str) -> Place | None:
    """A component alone, without any prefix."""
    return Place(parameter_name(module.path, parameter))


def _unprefixed(component: Component, module: Module, parameter: str) -> Place | None:
    """A component alone as checkpoints have it: open_clip's fused text encoders, Stability's Cascade stages."""
    place = component.place(module.path, parameter)
    return place._replace(key=place.key.removeprefix(component.checkpoint_prefix))


def _sgm(component: Component, module: Module, parameter: str) -> Place | None:
    """SD 2 checkpoints of Stability's later code (SD Turbo) keep the text encoder where SDXL has its first one."""
    place = component.place(module.path, parameter)
    older, newer = "cond_stage_model.model.", "conditioner.embedders.0.model."
    return place._replace(key=place.key.replace(older, newer, 1)) if place.key.startswith(older) else None


def _diffusers(component: Component, module: Module, parameter: str) -> Place | None:
    """The file of one component in the folder of a diffusers pipeline, where its modules are ours one to one."""
    return Place(parameter_name(module.diffusers, parameter)) if module.diffusers else None


_LAYOUTS: tuple[Layout, ...] = (_checkpoint, _old_clip, _sgm, _prefixed_denoiser, _net, _bare, _unprefixed, _diffusers)


def _titles() -> list[str]:
    return [row.title for row in ARCHITECTURES]


def _incomplete(file: TensorFile, quantised: Quantised, families: Iterable[Architecture]) -> str:
    """Say so where a file has parts of a model, too few of them for one."""
    best = (0, 0, "")
    for row in families:
        for component in row.components:
            scores = [_located(file, quantised, component, layout)[0] for layout in _LAYOUTS]
            score = max([*scores, *(score for score, _ in _renamed(file, component))])
            size = sum(len(module.shapes) for module in component.modules.values())
            best = max(best, (score, -size, f"{component.name} of {row.title}"))
    score, size, name = best
    if score * 2 < len(file) - sum(len(layer.keys) + len(layer.notes) - 1 for layer in quantised.layers.values()):
        return ""
    return f"It holds {score} of the {-size} parameters of the {name}: give the whole file."


def _hint(file: TensorSource) -> str:
    """Say so where a LoRA was given for a checkpoint."""
    if not file:
        return "It holds no tensor."
    if any(row.recognise(file) * 2 >= len(file) for row in FORMATS):
        return "It looks like a LoRA: give it as one, and a checkpoint in its place."
    return ""
