"""The parts of a pipeline from a folder in diffusers' layout; nothing is looked for on the network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from ...errors import ConfigError, CorruptFileError
from ...types import TEXT_ENCODER, TEXT_ENCODER_2
from .parts import Parts, TextEncoder

INDEX = "model_index.json"
UNET = "UNet2DConditionModel"
_TOKENIZERS = {TEXT_ENCODER: "tokenizer", TEXT_ENCODER_2: "tokenizer_2"}
_WEIGHTS = ("diffusion_pytorch_model", "model", "pytorch_model")


def load_folder(folder: Path, dtype: torch.dtype, label: str = "") -> Parts:
    """Load what training needs of a pipeline; the VAE in float32, since fp16 overflows in SDXL's.

    Raises:
        ConfigError: it is no pipeline, or one that has no UNet or lacks a part.
        CorruptFileError: a part cannot be read.
    """
    label = label or folder.name
    index = read_index(folder, label)
    encoders = [name for name in _TOKENIZERS if index.get(name, [None])[0] is not None]
    for name in ("unet", "vae", *encoders, *(_TOKENIZERS[name] for name in encoders)):
        if not (folder / name).is_dir():
            raise ConfigError("model.base", [f"{label} has no folder {name!r}; give a whole pipeline"])
    with quiet():
        return Parts(
            label,
            load_part(folder / "unet", UNET, dtype),
            load_part(folder / "vae", "AutoencoderKL", torch.float32),
            [
                TextEncoder(name, load_part(folder / name, index[name][1], dtype), load_tokenizer(folder, name))
                for name in encoders
            ],
            read_scheduler(folder),
        )


def read_index(folder: Path, label: str) -> Mapping[str, Any]:
    """``model_index.json``: part -> (library, class); of a pipeline with a UNet and one or two CLIPs."""
    path = folder / INDEX
    if not path.is_file():
        fault = f"{label} has no {INDEX}: it is no diffusers pipeline. Give a pipeline's folder or a checkpoint"
        raise ConfigError("model.base", [fault])
    index = _read_json(path)
    if index.get("unet", [None, None])[1] != UNET:
        fault = (
            f"{label} is a {index.get('_class_name', 'pipeline')} without a {UNET}; SD 1, SD 2 and SDXL are trained "
            f"from files, other families in ComfyUI by the node LoRA Train"
        )
        raise ConfigError("model.base", [fault])
    return index


def load_part(folder: Path, name: str, dtype: torch.dtype) -> Any:
    """One model of a pipeline by the name of its class."""
    import diffusers
    import transformers

    library: Any = transformers if hasattr(transformers, name) and not hasattr(diffusers, name) else diffusers
    if not hasattr(library, name):
        raise ConfigError("model.base", [f"{folder.name} is a {name}, which this diffusers and transformers lack"])
    keyword = "torch_dtype" if library is diffusers or transformers.__version__.startswith("4.") else "dtype"
    try:
        model = getattr(library, name).from_pretrained(
            folder, local_files_only=True, variant=_variant(folder), **{keyword: dtype}
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CorruptFileError(folder.name, f"cannot be loaded as {name}: {error}") from error
    return model.eval().requires_grad_(False)


def load_tokenizer(folder: Path, component: str = TEXT_ENCODER) -> Any:
    """The tokenizer of a text encoder of a pipeline."""
    from transformers import CLIPTokenizer

    place = folder / _TOKENIZERS[component]
    try:
        return cast(Any, CLIPTokenizer).from_pretrained(str(place), local_files_only=True)
    except (OSError, ValueError) as error:
        raise CorruptFileError(place.name, f"cannot be loaded as a tokenizer: {error}") from error


def read_scheduler(folder: Path) -> Mapping[str, Any]:
    """The scheduler's settings."""
    path = folder / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        raise ConfigError("model.base", [f"{folder.name} has no scheduler/{path.name}; give a whole pipeline"])
    return _read_json(path)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of both libraries inside the block: ours show more, and a log of them is noise."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries: list[Any] = [
        library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()
    ]
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in libraries:
            library.enable_progress_bar()


def _variant(folder: Path) -> str | None:
    """None where there are weights without a variant's name, else the variant that is there: ``fp16``."""
    names = [path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
    found = {name.split(".")[1] for name in names if name.startswith(_WEIGHTS) and name.count(".") > 1}
    plain = any(name.startswith(_WEIGHTS) and name.count(".") == 1 for name in names)
    return None if plain or not found else min(found)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptFileError(path.name, f"cannot be read: {error}") from error
