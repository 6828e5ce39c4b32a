"""PEFT's own names: ``base_model.model.<path>.lora_A.weight``, alone or below a pipeline folder.

``save_pretrained`` writes a folder of ``adapter_model.safetensors`` and ``adapter_config.json``; rank and alpha are in
the latter only, so a file without it has scale 1. ``.default`` (the adapter's name) stays in files that were saved
from a training run's state dict, ``unet.base_model.model.`` and ``transformer.base_model.model.`` in files of
trainers that put PEFT's names below diffusers' folders (SimpleTuner). Source: PEFT.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..architectures import Architecture, Component, Location
from ..io import TensorSource
from ..types import TEXT_ENCODER_2, TEXT_ENCODER_3
from ..untrusted import json_object
from .base import Format, Found, Located, Names, Reading, Scale, no_scale
from .dotted import every_path, table
from .peft_scale import check_settings, config_scale
from .suffixes import split_suffix
from .writing import PEFT_LORA, Writing, diffusers_modules

# Where the reader of a PEFT folder puts the text of adapter_config.json.
CONFIG_KEY = "adapter_config"
WRAPPER = "base_model.model."


def split(key: str) -> Found:
    """``base_model.model.conv_in.lokr_w1`` -> (``base_model.model.conv_in``, ``lokr_w1``)."""
    found = split_suffix(key) if WRAPPER in key else None
    # OneTrainer's tensor of this name means another thing for convolutions (adapters.peft_oft).
    return found._replace(role="peft_oft_R") if found is not None and found.role == "oft_R" else found


def names(architecture: Architecture) -> Names:
    """Every path of every component behind the wrapper, and behind folder and wrapper."""

    def prefixes(component: Component) -> tuple[str, ...]:
        return f"{component.diffusers_prefix}.{WRAPPER}", WRAPPER

    return table(architecture, prefixes, every_path)


def reading(first: str) -> Reading:
    """The same where the bare wrapper is around this component: a pipeline's text encoders have one set of names, and
    each folder of PEFT's is of one of them. The shapes tell which."""

    def names_first(architecture: Architecture) -> Names:
        component = architecture.component(first)
        if component is None:
            return {}
        own = {f"{WRAPPER}{path}": Located.of(first, place) for path, place in component.paths.items()}
        return {**names(architecture), **own}

    return names_first


def settings(file: TensorSource) -> dict[str, object] | None:
    """``adapter_config.json``, where it came with the file.

    Raises:
        CorruptFileError: it is no JSON object.
    """
    text = file.metadata.get(CONFIG_KEY)
    return None if text is None else json_object(text, f"{file.label}, adapter_config.json")


def scale(file: TensorSource) -> Scale:
    """The rule of ``adapter_config.json``.

    Raises:
        CorruptFileError: it is no JSON object, or has a regular expression for a name, or no number for alpha.
    """
    stated = settings(file)
    if stated is None:
        return no_scale
    check_settings(stated, file.label)

    def rule(located: Located, name: str, rank: int | None) -> float | None:
        return config_scale(stated, name.partition(WRAPPER)[2], rank)

    return rule


def _written(architecture: Architecture, component: Component) -> Mapping[str, Location]:
    """The names of the models that PEFT wraps. transformers 5 has no ``text_model`` in a CLIPTextModel any more, but
    in one with a projection."""
    names = diffusers_modules(architecture, component)
    if "text_projection" in component.modules:
        return names
    return {name.removeprefix("text_model."): place for name, place in names.items()}


LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
WRITING = Writing(
    prefix=lambda component: WRAPPER,
    modules=_written,
    suffixes={**PEFT_LORA, **{role: role for role in LOHA}},
    scale="config",
)
READINGS = (reading(TEXT_ENCODER_2), reading(TEXT_ENCODER_3))
FORMAT = Format("peft", "PEFT", split, names, scale, settings=settings, writing=WRITING, readings=READINGS)
