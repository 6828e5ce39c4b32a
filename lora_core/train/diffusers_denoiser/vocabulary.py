"""CLIP's tokenizers for single files, which have none: one vocabulary for all, and two ways to fill up.

It is a megabyte and not part of this library. It is taken from the folder that the user gives, from what any pipeline
of SD left in the hub's cache, or else from the hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...types import TEXT_ENCODER
from .configs import Configs
from .folder import TOKENIZER_FILES, TOKENIZERS, has_tokenizer, read_tokenizer
from .hub import cached, failures
from .libraries import library

# The authors' repository, then pipelines with the same files.
SOURCES = (
    ("openai/clip-vit-large-patch14", ""),
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "tokenizer"),
    ("runwayml/stable-diffusion-v1-5", "tokenizer"),
    ("stabilityai/stable-diffusion-2-1", "tokenizer"),
    ("stabilityai/stable-diffusion-xl-base-1.0", "tokenizer"),
)
# With the id 0; CLIP-H and CLIP-G were trained with zeros behind the text.
_ZERO_WORD = "!"


def tokenizer_for(component: str, configs: Configs, pipeline: Path | None, label: str) -> Any:
    """The tokenizer of a text encoder, whose settings say what it is filled up with.

    Raises:
        ConfigError: none is at hand and the hub does not answer.
    """
    if pipeline is not None:
        for name in dict.fromkeys((component, TEXT_ENCODER)):
            if has_tokenizer(place := pipeline / TOKENIZERS[name]):
                return _filled_up(read_tokenizer(place), configs, component)
    return _filled_up(_from_hub(label), configs, component)


def _filled_up(tokenizer: Any, configs: Configs, component: str) -> Any:
    if configs.encoders[component].get("pad_token_id") == 0:
        tokenizer.pad_token = _ZERO_WORD
    return tokenizer


def _from_hub(label: str) -> Any:
    for repository, part in SOURCES:
        folder = cached(repository, f"{part}/{TOKENIZER_FILES[0]}".removeprefix("/"))
        if folder is not None and has_tokenizer(folder / part):
            return read_tokenizer(folder / part)
    hub = library("huggingface_hub")
    repository, _ = SOURCES[0]
    try:
        return read_tokenizer(Path(hub.snapshot_download(repository, allow_patterns=list(TOKENIZER_FILES))))
    except failures():
        pass
    fault = (
        f"{label} has no tokenizer, as all single files, and the hub cannot be reached for CLIP's; "
        f"give a folder with one in it, as tokenizer/vocab.json and tokenizer/merges.txt of any pipeline of SD"
    )
    raise ConfigError("model.pipeline", [fault])
