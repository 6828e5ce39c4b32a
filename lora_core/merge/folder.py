"""The folder of a diffusers pipeline, seen as the single-file checkpoint that it would be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from ..architectures import ARCHITECTURES, Architecture, Component
from ..errors import CorruptFileError, UnknownCheckpointError
from ..io import TensorFile, TensorRef
from ..types import VAE
from ..untrusted import read_json
from . import vae_names
from .assembly import assembled, fitting, named, tensors_of
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
    """Open a pipeline folder, or that of one component, and find its architecture among these.

    Errors as ``open_checkpoint``.
    """
    path = path.resolve()  # its name is shown, so "." must have one
    families = tuple(families)
    parts = {name: _component(path, name) for name in _names(path, families)}
    refs = {name: _tensors(files) for name, files in parts.items()}
    if not parts and _weights(path):
        parts = {path.name: _component(path.parent, path.name)}
        found = _tensors(parts[path.name])
        refs = {_alone(found, families) or path.name: found}
    best = max(families, key=lambda row: _score(refs, row))
    if not _score(refs, best):
        example = next((f"{name}/{key}" for name, found in refs.items() for key in found), "")
        hint = "" if example else "It has no safetensors files of a UNet, transformer or text encoder."
        raise UnknownCheckpointError(path.name, example, [row.title for row in ARCHITECTURES], hint)
    tensors: dict[str, Stored] = {}
    left_out: dict[str, str] = {}
    for component in best.components:
        name = component.diffusers_prefix
        found = refs.pop(name, {})
        if found and not _fits(found, component):
            left_out[name] = f"not the {component.name} of {best.title}: other names or shapes"
            continue
        pieces, rest = assembled(component, found, best, component.diffusers)
        pieces |= _positions(component, rest)
        tensors |= tensors_of(path.name, component, pieces)
        left_out |= {f"{name}/{key}": f"a single-file checkpoint of {best.title} has no such tensor" for key in rest}
    vae = refs.pop(VAE, {})
    if vae and (reason := vae_names.unknown(vae)):
        left_out[VAE] = f"{reason}; load the VAE beside the merged file"
    else:
        tensors |= _vae(vae, vae_names.prefix_of(best))
    left_out |= dict.fromkeys(refs, f"a single-file checkpoint of {best.title} has no place for it")
    left_out |= {
        name: "a single file holds one denoiser; merge this folder by itself"
        for name in _further(path)
        if name not in parts
    }
    return Checkpoint(
        label=path.name,
        architecture=best,
        metadata={CONFIGS_KEY: json.dumps(_configs(path), sort_keys=True)},
        tensors=tensors,
        places={
            target.whole: place
            for component in best.components
            for _, targets, _ in named(component, component.diffusers)
            for target in targets
            if (place := best.place(target.whole)) is not None and place.key in tensors
        },
        files={f"{name}/{file.path.name}": file.path for name, files in parts.items() for file in files},
        left_out=left_out,
    )


def _names(path: Path, families: Iterable[Architecture]) -> list[str]:
    """The folders of weights that are there, the architectures' and the VAE's."""
    known = dict.fromkeys(component.diffusers_prefix for row in families for component in row.components)
    return [name for name in (*known, VAE) if (path / name).is_dir()]


def _further(path: Path) -> list[str]:
    """Folders of a second denoiser: Wan 2.2 has one for strong and one for weak noise."""
    return [name for name in ("transformer_2", "unet_2") if (path / name).is_dir()]


def _weights(folder: Path) -> list[Path]:
    """The files of weights of a component's folder."""
    return [file for stem in _WEIGHTS for file in folder.glob(f"{stem}*.safetensors*")]


def _tensors(files: Iterable[TensorFile]) -> Mapping[str, TensorRef]:
    return {key: ref for file in files for key, ref in file.items()}


def _alone(found: Mapping[str, TensorRef], families: Iterable[Architecture]) -> str:
    """The folder that a component would have in a pipeline, "" where it is of no family."""
    fits = {
        (component.diffusers_prefix, row.name): fitting(component, found, component.diffusers)
        for row in families
        for component in row.components
        if _fits(found, component)
    }
    return max(fits, key=lambda one: fits[one])[0] if fits else ""


def _positions(component: Component, rest: dict[str, TensorRef]) -> dict[str, list[Piece]]:
    """The numbers of the positions, which CLIP's checkpoints have and open_clip's not; they leave ``rest``."""
    names = [name for name in rest if name.endswith(_POSITION_IDS) and not component.places]
    return {f"{component.checkpoint_prefix}text_model.{_POSITION_IDS}": [Piece(rest.pop(name))] for name in names}


def _vae(found: Mapping[str, TensorRef], prefix: str) -> dict[str, Stored]:
    levels = vae_names.levels_of(found)
    return {
        prefix + vae_names.checkpoint_name(name, levels): Stored(
            vae_names.checkpoint_shape(name, ref.shape), ref.dtype, (Piece(ref),)
        )
        for name, ref in found.items()
    }


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


def _score(refs: Mapping[str, Mapping[str, TensorRef]], architecture: Architecture) -> int:
    """Parameters that are there with the architecture's shape, of the components that are at least half there."""
    counts = (
        (fitting(component, found, component.diffusers), component)
        for component in architecture.components
        if (found := refs.get(component.diffusers_prefix))
    )
    return sum(count for count, component in counts if count * 2 >= _size(component))


def _fits(found: Mapping[str, TensorRef], component: Component) -> bool:
    return fitting(component, found, component.diffusers) * 2 >= _size(component)


def _size(component: Component) -> int:
    return sum(len(module.shapes) for module in component.modules.values())


def _configs(path: Path) -> dict[str, dict[str, object]]:
    """component -> its configuration, scheduler included."""
    files = [folder / name for folder in sorted(path.iterdir()) if folder.is_dir() for name in _CONFIGS]
    return {file.parent.name: _json(file, f"{path.name}/{file.parent.name}") for file in files if file.is_file()}


def _json(path: Path, label: str) -> dict[str, object]:
    try:
        return read_json(path)
    except CorruptFileError as error:
        raise CorruptFileError(f"{label}/{path.name}", error.what) from None
