"""The parts of a pipeline from a folder in diffusers' layout; nothing is looked for on the network."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...errors import ConfigError, CorruptFileError
from ...io import TensorFile
from ...types import TEXT_ENCODER, TEXT_ENCODER_2
from ..hushed import hushed
from .libraries import library
from .parts import Parts, TextEncoder

INDEX = "model_index.json"
UNET = "UNet2DConditionModel"
TOKENIZERS = {TEXT_ENCODER: "tokenizer", TEXT_ENCODER_2: "tokenizer_2"}
_ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection")
_FORMS = (("vocab.json", "merges.txt"), ("tokenizer.json",))
TOKENIZER_FILES = (*(name for form in _FORMS for name in form), "tokenizer_config.json", "special_tokens_map.json")
_WEIGHTS = ("diffusion_pytorch_model", "model", "pytorch_model")


def load_folder(folder: Path, dtype: torch.dtype, label: str = "") -> Parts:
    """Load what training needs of a pipeline; the VAE in float32, since fp16 overflows in SDXL's.

    Raises:
        ConfigError: it is no pipeline, or one that has no UNet or lacks a part.
        CorruptFileError: a part cannot be read.
    """
    label = label or folder.name
    index = read_index(folder, label)
    encoders = [name for name in TOKENIZERS if index.get(name, [None])[0] is not None]
    for name in ("unet", "vae", *encoders, *(TOKENIZERS[name] for name in encoders)):
        if not (folder / name).is_dir():
            raise ConfigError("model.base", [f"{label} has no folder {name!r}; give a whole pipeline"])
    if unknown := [index[name][1] for name in encoders if index[name][1] not in _ENCODERS]:
        raise ConfigError("model.base", [f"{label} has a text encoder {unknown[0]}; SD 1, SD 2 and SDXL have CLIP's"])
    with quiet():
        return Parts(
            label,
            load_part(folder / "unet", UNET, dtype),
            load_part(folder / "vae", "AutoencoderKL", torch.float32),
            [
                TextEncoder(
                    name, load_part(folder / name, index[name][1], dtype), read_tokenizer(folder / TOKENIZERS[name])
                )
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
    index = read_json(path)
    if index.get("unet", [None, None])[1] != UNET:
        fault = (
            f"{label} is a {index.get('_class_name', 'pipeline')} without a {UNET}; SD 1, SD 2 and SDXL are trained "
            f"from files, other families in ComfyUI by the node LoRA Train"
        )
        raise ConfigError("model.base", [fault])
    return index


def load_part(folder: Path, name: str, dtype: torch.dtype) -> Any:
    """One model of a pipeline by the name of its class."""
    diffusers, transformers = library("diffusers"), library("transformers")
    home = transformers if hasattr(transformers, name) and not hasattr(diffusers, name) else diffusers
    if not hasattr(home, name):
        raise ConfigError("model.base", [f"{folder.name} is a {name}, which this diffusers and transformers lack"])
    keyword = "torch_dtype" if home is diffusers or transformers.__version__.startswith("4.") else "dtype"
    for path in folder.glob("*.safetensors"):
        TensorFile(path).close()  # says what is wrong with a damaged file
    try:
        model, report = getattr(home, name).from_pretrained(
            folder, local_files_only=True, variant=_variant(folder), output_loading_info=True, **{keyword: dtype}
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CorruptFileError(folder.name, f"cannot be loaded as {name}: {error}") from error
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("position_ids"))
    if missing:  # they would be random numbers
        raise CorruptFileError(folder.name, f"has no weights for {len(missing)} parameters of {name}: {missing[0]}")
    return model.eval().requires_grad_(False)


def has_tokenizer(folder: Path) -> bool:
    """Whether the files of CLIP's words are there, in the older or the newer form."""
    return any(all((folder / name).is_file() for name in form) for form in _FORMS)


def read_tokenizer(folder: Path) -> Any:
    """A tokenizer from its own folder; of the two kinds of transformers 4 the one that is left in 5, so that both cut
    text alike. (transformers makes an empty one where there are no files.)
    """
    if not has_tokenizer(folder):
        raise ConfigError("model.base", [f"{folder.name} has no vocab.json and merges.txt; give a whole pipeline"])
    try:
        return library("transformers").CLIPTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise CorruptFileError(folder.name, f"cannot be loaded as a tokenizer: {error}") from error


def read_scheduler(folder: Path) -> Mapping[str, Any]:
    """The scheduler's settings."""
    path = folder / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        raise ConfigError("model.base", [f"{folder.name} has no scheduler/{path.name}; give a whole pipeline"])
    return read_json(path)


def read_json(path: Path) -> Mapping[str, Any]:
    """A configuration.

    Raises:
        CorruptFileError: it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptFileError(path.name, f"cannot be read: {error}") from error


@contextmanager
def quiet() -> Generator[None, None, None]:
    """No progress bars of both libraries inside the block: ours show more, and a log of them is noise."""
    with hushed():
        logs = [library(f"{name}.utils.logging") for name in ("diffusers", "transformers")]
        shown = [log for log in logs if log.is_progress_bar_enabled()]
        for log in shown:
            log.disable_progress_bar()
        try:
            yield
        finally:
            for log in shown:
                log.enable_progress_bar()


def _variant(folder: Path) -> str | None:
    """None where there are weights without a variant's name, else the variant that is there: ``fp16``."""
    names = [path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
    found = {name.split(".")[1] for name in names if name.startswith(_WEIGHTS) and name.count(".") > 1}
    plain = any(name.startswith(_WEIGHTS) and name.count(".") == 1 for name in names)
    return None if plain or not found else min(found)
