"""Another VAE in a checkpoint: the tensors of a VAE file take the place of the checkpoint's own."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError, ShapeMismatchError
from ..io import TensorFile
from . import vae_names
from .source import Checkpoint, Piece, Stored

# Kept beside the weights by training runs; no part of the model.
_TRAINING = ("loss.", "model_ema.")


def with_vae(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint with the VAE of this file in place of its own.

    Args:
        checkpoint: whole; it needs no VAE of its own.
        path: safetensors, under the checkpoint's names, with or without their prefix, or diffusers'.

    Raises:
        ConfigError: the file is no VAE, or lacks tensors of the one that it replaces.
        ShapeMismatchError: it is the VAE of another family.
    """
    file = TensorFile(path)
    prefix = vae_names.prefix_of(checkpoint.architecture)
    own = {key: stored for key, stored in checkpoint.tensors.items() if key.startswith(vae_names.PREFIXES)}
    if own:
        prefix = next(one for one in vae_names.PREFIXES if next(iter(own)).startswith(one))
    names = {key: _bare(key) for key in file if not key.startswith(_TRAINING)}
    levels = vae_names.levels_of(names.values())
    found: dict[str, Stored] = {}
    for key, name in names.items():
        ref = file[key]
        stored = Stored(vae_names.checkpoint_shape(name, ref.shape), ref.dtype, (Piece(ref),))
        found[prefix + vae_names.checkpoint_name(name, levels)] = stored
    if f"{prefix}decoder.conv_in.weight" not in found and own.keys().isdisjoint(found):
        raise ConfigError(file.label, [f"no VAE: its keys look like {next(iter(file), '')!r}. Choose a VAE file"])
    for key, stored in own.items():
        other = found.get(key)
        if other is None:
            raise ConfigError(file.label, [f"lacks {key} of the VAE in {checkpoint.label}. Choose a whole VAE"])
        if other.shape != stored.shape:
            hint = f"The VAE is of another model family than {checkpoint.label}."
            raise ShapeMismatchError(file.label, key, stored.shape, other.shape, hint)
    kept = {key: stored for key, stored in checkpoint.tensors.items() if key not in own}
    files = {**checkpoint.files, file.label: Path(path)}
    return replace(checkpoint, tensors=kept | found, files=files)


def _bare(key: str) -> str:
    """Without the prefix that it has in whole checkpoints."""
    for prefix in vae_names.PREFIXES:
        key = key.removeprefix(prefix)
    return key
