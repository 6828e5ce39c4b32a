"""The one way to open what holds tensors of a LoRA: a safetensors file, a pickle, or a folder with one of them.

What a file is, its first bytes say and not its name: programs give pickles the names of safetensors, and the reverse.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CorruptFileError
from ..untrusted import read_text
from .pickled import TensorPickle, is_pickle
from .tensor_file import TensorFile
from .tensor_ref import TensorSource

# What PEFT and diffusers call the file in a folder, in this order.
FOLDER_FILES = (
    "adapter_model.safetensors",
    "adapter_model.bin",
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights.bin",
)
# PEFT's settings beside its file, as a text under this name of the metadata.
CONFIG = "adapter_config"


def open_tensors(path: str | os.PathLike[str]) -> TensorSource:
    """Open a file or a folder; only headers are read.

    Metadata gets ``adapter_config``, PEFT's JSON, where it stands beside an ``adapter_model``.

    Raises:
        FileNotFoundError: there is none.
        CorruptFileError: it is damaged, or is none of these.
    """
    file = tensors_path(path)
    with file.open("rb") as handle:
        start = handle.read(16)
    source = TensorPickle(file) if is_pickle(start) else TensorFile(file)
    if file.name in FOLDER_FILES:
        source.label = f"{file.parent.name}/{file.name}"  # every folder's file has this name
    config = _config(file)
    if config is not None:
        source.metadata[CONFIG] = read_text(config)
    return source


def tensors_path(path: str | os.PathLike[str]) -> Path:
    """The file itself, or the one in a folder that holds the tensors.

    Raises:
        CorruptFileError: a folder without one.
    """
    place = Path(path)
    if not place.is_dir():
        return place
    found = next((name for name in FOLDER_FILES if (place / name).is_file()), None)
    if found is None:
        raise CorruptFileError(place.name, f"a folder without {FOLDER_FILES[0]}", "Give the file itself.")
    return place / found


def holds_tensors(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a LoRA itself, and not one of LoRAs."""
    return any((Path(folder) / name).is_file() for name in FOLDER_FILES)


def state_of(path: str | os.PathLike[str]) -> str:
    """Changes with the file, and with the settings beside it; for keeping results of it."""
    file = tensors_path(path)
    places = [file, *([config] if (config := _config(file)) else [])]
    return "|".join(f"{os.path.realpath(place)}:{(s := place.stat()).st_mtime_ns}:{s.st_size}" for place in places)


def _config(file: Path) -> Path | None:
    config = file.with_name(f"{CONFIG}.json")
    return config if file.stem == "adapter_model" and config.is_file() else None
