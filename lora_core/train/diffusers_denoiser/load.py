"""Model settings -> parts: from a folder, a single file, or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...architectures import Architecture
from ...errors import ConfigError, ShapeMismatchError
from ..config import ModelSection
from .folder import INDEX, load_folder, load_part, quiet
from .hub import hub_folder
from .parts import Parts
from .single_file import load_file, load_vae_file

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_parts(model: ModelSection, architecture: Architecture | None = None) -> Parts:
    """The parts of the base, frozen, on the CPU; errors as ``DiffusersDenoiser.load``."""
    base, dtype = Path(model.base), DTYPES[model.dtype]
    if base.is_file():
        pipeline = Path(model.pipeline) if model.pipeline else None
        if pipeline is not None and not pipeline.is_dir():
            raise ConfigError("model.pipeline", [f"there is no folder {model.pipeline!r}"])
        with quiet():
            loaded = load_file(base, pipeline, dtype, architecture)
    else:
        loaded = load_folder(_folder(model.base, model), dtype, base.name)
    if model.vae:
        loaded.vae = _vae(model, loaded.vae)
    return loaded


def _folder(name: str, model: ModelSection) -> Path:
    """A pipeline's folder here, or the hub's in its cache."""
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or Path(name).is_absolute() or name.startswith("."):
        raise ConfigError("model.base", [f"there is no file or folder {name!r}"])
    return hub_folder(name, model.revision, model.dtype != "fp32")


def _vae(model: ModelSection, own: Any) -> Any:
    """Another VAE in the place of the base's own: a file, the VAE's folder, or a pipeline's."""
    path = Path(model.vae)
    with quiet():
        if path.is_file():
            vae = load_vae_file(path, own)
        elif (path / "config.json").is_file():
            vae = load_part(path, "AutoencoderKL", torch.float32)
        elif (path / INDEX).is_file():
            vae = load_part(path / "vae", "AutoencoderKL", torch.float32)
        else:
            raise ConfigError("model.vae", [f"there is no VAE in {model.vae!r}; give a file or a folder of one"])
    if vae.config.latent_channels != own.config.latent_channels:
        hint = "The VAE is of another model family than the base."
        expected, got = own.config.latent_channels, vae.config.latent_channels
        raise ShapeMismatchError(path.name, "latent channels", expected, got, hint)
    return vae
