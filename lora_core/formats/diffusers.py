"""The names of diffusers: ``unet.<path>.lora_A.weight`` and its two elder forms.

- new (PEFT): ``unet.down_blocks.0...to_q.lora_A.weight``, ``.lora_B.weight``, ``.lora_magnitude_vector``
- middle: ``...to_q.lora.down.weight``; text encoders ``...q_proj.lora_linear_layer.down.weight``
- old: ``...attn1.processor.to_q_lora.down.weight``; text encoders ``...self_attn.to_q_lora.down.weight``

The denoiser's prefix may be missing. A file states no alpha, so the scale is 1, but for a JSON text in the
metadata (``lora_adapter_metadata``) that newer diffusers write; some programs put ``.alpha`` beside these names.
Sources: diffusers' loaders and scripts.
"""

from __future__ import annotations

from ..architectures import Architecture
from ..io import TensorSource
from ..types import DENOISER
from ..untrusted import json_object
from .base import Format, Located, Names, Scale, no_scale
from .dotted import diffusers_paths, pipeline_or_bare, table
from .dotted_keys import split
from .peft_scale import check_settings, config_scale
from .writing import PEFT_LORA, Writing, diffusers_modules

METADATA_KEY = "lora_adapter_metadata"


def names(architecture: Architecture) -> Names:
    """Every module under its diffusers path, with the pipeline folder in front; the denoiser also bare."""
    return table(architecture, pipeline_or_bare, diffusers_paths)


def scale(file: TensorSource) -> Scale:
    """The rule of ``lora_adapter_metadata``: PEFT's LoraConfig of each component, JSON, ``<folder>.<setting>``.

    Raises:
        CorruptFileError: it is no JSON object, or has a regular expression for a name, or no number for alpha.
    """
    text = file.metadata.get(METADATA_KEY)
    if text is None:
        return no_scale
    settings = json_object(text, f"{file.label}, metadata {METADATA_KEY}")
    check_settings(settings, file.label)
    folders: dict[str, dict[str, object]] = {}
    for key, value in settings.items():
        folder, _, setting = key.partition(".")
        folders.setdefault(folder, {})[setting] = value

    def rule(located: Located, name: str, rank: int | None) -> float | None:
        component = located.module.component
        wanted = ("unet", "transformer") if component == DENOISER else (component,)
        folder = next((folder for folder in wanted if folder in folders), None)
        return config_scale(folders[folder], name, rank) if folder else None

    return rule


# What loads these files without diffusers does not read its metadata, so the scale goes into the factors.
WRITING = Writing(
    prefix=lambda component: f"{component.diffusers_prefix}.",
    modules=diffusers_modules,
    suffixes=PEFT_LORA,
    scale="factors",
)
FORMAT = Format("diffusers", "diffusers", split, names, scale, writing=WRITING)
