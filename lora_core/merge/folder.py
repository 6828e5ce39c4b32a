"""The folder of a diffusers pipeline, seen as the single-file checkpoint that it would be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

from ..architectures import ARCHITECTURES, Architecture, Component
from ..architectures.spec import parameter_name, sliced_shape
from ..errors import CorruptFileError, UnknownCheckpointError
from ..io import TensorFile, TensorRef
from ..io.dtypes import itemsize
from ..types import VAE, ModuleKey, Shape, Slice, Target
from ..untrusted import read_json
from . import vae_names
from .source import Checkpoint, Piece, Stored

# Metadata of what is written: the folder's configurations as JSON, component -> configuration. A single file says
# nothing else of widths, prediction type and scaling.
CONFIGS_KEY = "loom.pipeline"

_WEIGHTS = ("diffusion_pytorch_model", "model")
_VARIANTS = ("", ".fp16", ".bf16", ".non_ema")
_CONFIGS = ("config.json", "scheduler_config.json")
_POSITION_IDS = "embeddings.position_ids"
_SAVE_AGAIN = "Save the pipeline with safe_serialization=True."


def open_folder(path: Path, families: Iterable[Architecture] = ARCHITECTURES) -> Checkpoint:
    """Open a pipeline folder and find its architecture among these; errors as ``open_checkpoint``."""
    path = path.resolve()  # its name is shown, so "." must have one
    parts = {name: _component(path, name) for name in _names(path)}
    refs = {name: {key: ref for file in files for key, ref in file.items()} for name, files in parts.items()}
    best = max(families, key=lambda row: _score(refs, row))
    if not _score(refs, best):
        example = next((f"{name}/{key}" for name, found in refs.items() for key in found), "")
        hint = "" if example else "It has no safetensors files of a UNet or text encoder."
        raise UnknownCheckpointError(path.name, example, [row.title for row in ARCHITECTURES], hint)
    tensors: dict[str, Stored] = {}
    left_out: dict[str, str] = {}
    for component in best.components:
        found = refs.get(component.diffusers_prefix, {})
        pieces, rest = _assembled(component, found, best)
        lengths = _lengths(component)
        tensors |= {key: _stored(path.name, key, made_of, lengths.get(key)) for key, made_of in pieces.items()}
        left_out |= {f"{component.diffusers_prefix}/{key}": reason for key, reason in rest.items()}
    vae = refs.get(VAE, {})
    levels = vae_names.levels_of(vae)
    for name, ref in vae.items():
        key = vae_names.PREFIX + vae_names.checkpoint_name(name, levels)
        tensors[key] = Stored(vae_names.checkpoint_shape(name, ref.shape), ref.dtype, (Piece(ref),))
    return Checkpoint(
        label=path.name,
        architecture=best,
        metadata={CONFIGS_KEY: json.dumps(_configs(path), sort_keys=True)},
        tensors=tensors,
        places={
            target.whole: place
            for component in best.components
            for _, targets, _ in _parameters(component)
            for target in targets
            if (place := best.place(target.whole)) is not None and place.key in tensors
        },
        files={f"{name}/{file.path.name}": file.path for name, files in parts.items() for file in files},
        left_out=left_out,
    )


def _names(path: Path) -> list[str]:
    """The folders of weights that are there, the architectures' and the VAE's."""
    known = dict.fromkeys(component.diffusers_prefix for row in ARCHITECTURES for component in row.components)
    return [name for name in (*known, VAE) if (path / name).is_dir()]


def _component(path: Path, name: str) -> list[TensorFile]:
    """The weight files of one component: one, or the parts of a sharded one."""
    folder = path / name
    for stem in (f"{weights}{variant}" for weights in _WEIGHTS for variant in _VARIANTS):
        single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
        if single.is_file():
            return [TensorFile(single)]
        if index.is_file():
            return [TensorFile(folder / part) for part in _shards(index, f"{path.name}/{name}")]
    raise CorruptFileError(f"{path.name}/{name}", "holds no safetensors weights", _SAVE_AGAIN)


def _shards(index: Path, label: str) -> list[str]:
    """The names of the parts of a sharded file: files beside its index, nothing else."""
    parts = _json(index, label).get("weight_map")
    if not isinstance(parts, dict) or not parts:
        what = "has no weight_map, an object of tensor name -> file name"
        raise CorruptFileError(f"{label}/{index.name}", what, _SAVE_AGAIN)
    names = list(cast("dict[str, object]", parts).values())
    for part in names:
        if not isinstance(part, str) or not part.endswith(".safetensors") or re.search(r"[/\\:\0]", part):
            what = f"names {part!r:.200}, expected a .safetensors file of its folder"
            raise CorruptFileError(f"{label}/{index.name}", what, _SAVE_AGAIN)
    return sorted({str(part) for part in names})


def _parameters(component: Component) -> Iterator[tuple[str, list[Target], Shape]]:
    """(diffusers name, where its rows lie, shape) of every parameter, under each name that it may have."""
    for path, location in component.diffusers.items():
        modules = [component.modules[part.path] for part in location.parts]
        for parameter in modules[0].shapes:
            shapes = [
                sliced_shape(module.shapes[parameter], part.slice) if part.slice else module.shapes[parameter]
                for module, part in zip(modules, location.parts, strict=True)
            ]
            shape = (sum(part[0] for part in shapes), *shapes[0][1:]) if len(shapes) > 1 else shapes[0]
            targets = [Target(ModuleKey(component.name, part.path), parameter, part.slice) for part in location.parts]
            for name in (parameter, *modules[0].also.get(parameter, ())):
                yield parameter_name(path, name), targets, shape


def _score(refs: Mapping[str, Mapping[str, TensorRef]], architecture: Architecture) -> int:
    """Parameters that are there with the architecture's shape, of the components that are at least half there."""
    total = 0
    for component in architecture.components:
        found = refs.get(component.diffusers_prefix, {})
        fits = [name in found and found[name].shape == shape for name, _, shape in _parameters(component)]
        size = sum(len(module.shapes) for module in component.modules.values())
        total += sum(fits) if sum(fits) * 2 >= size else 0
    return total


def _assembled(
    component: Component, found: Mapping[str, TensorRef], architecture: Architecture
) -> tuple[dict[str, list[Piece]], dict[str, str]]:
    """Checkpoint key -> pieces, and the names that have no place in a checkpoint -> reason."""
    pieces: dict[str, list[Piece]] = {}
    rest = dict(found)
    for name, targets, _ in _parameters(component):
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
    left_out: dict[str, str] = {}
    for name, ref in rest.items():
        if name.endswith(_POSITION_IDS) and not component.places:
            pieces[f"{component.checkpoint_prefix}text_model.{_POSITION_IDS}"] = [Piece(ref)]
        else:
            left_out[name] = f"a single-file checkpoint of {architecture.title} has no such tensor"
    return pieces, left_out


def _lengths(component: Component) -> dict[str, int]:
    """Key of a fused tensor of the checkpoint -> its length along the dimension of its slices."""
    lengths: dict[str, int] = {}
    for location in component.diffusers.values():
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
    shape = first.ref.shape[::-1] if first.transposed else first.ref.shape
    if first.slice is not None and length is not None:
        if sum(piece.slice.length for piece in pieces if piece.slice) != length:
            raise CorruptFileError(label, f"parts of {key} are missing: {len(pieces)} are there")
        shape = (*shape[: first.slice.dim], length, *shape[first.slice.dim + 1 :])
    widest = max((piece.ref.dtype for piece in pieces), key=itemsize)
    return Stored(shape, widest, tuple(pieces))


def _configs(path: Path) -> dict[str, dict[str, object]]:
    """component -> its configuration, scheduler included."""
    files = [folder / name for folder in sorted(path.iterdir()) if folder.is_dir() for name in _CONFIGS]
    return {file.parent.name: _json(file, f"{path.name}/{file.parent.name}") for file in files if file.is_file()}


def _json(path: Path, label: str) -> dict[str, object]:
    try:
        return read_json(path)
    except CorruptFileError as error:
        raise CorruptFileError(f"{label}/{path.name}", error.what) from None
