"""The names of diffusers and PEFT: ``unet.<path>.lora_A.weight`` and its two elder forms.

- new (PEFT): ``unet.down_blocks.0...to_q.lora_A.weight``, ``.lora_B.weight``, ``.lora_magnitude_vector``
- middle: ``...to_q.lora.down.weight``; text encoders ``...q_proj.lora_linear_layer.down.weight``
- old: ``...attn1.processor.to_q_lora.down.weight``; text encoders ``...self_attn.to_q_lora.down.weight``

The denoiser's prefix may be missing. A file states no alpha, so the scale is 1, but for a JSON text in the
metadata (``lora_adapter_metadata``) that newer diffusers write. Sources: diffusers' loaders and scripts.
"""

from __future__ import annotations

import re

from ..architectures import Architecture
from ..errors import CorruptFileError
from ..io import TensorSource
from ..numeric import finite
from ..types import DENOISER, ModuleKey
from ..untrusted import json_object, mapping
from .base import Alpha, Format, Ignored, Located, NamedRole, Names, no_alpha, split_suffix

METADATA_KEY = "lora_adapter_metadata"

# to_q.lora_A.weight; also lora_A_1.default_0.weight, names of a training run that leaked into files.
_PEFT = re.compile(r"^(.+)\.lora_([AB])(?:_\d+)?(?:\.default(?:_\d+)?)?\.weight$")
# to_q.lora_magnitude_vector, PEFT's get_peft_model_state_dict leaves .weight out.
_MAGNITUDE = re.compile(r"^(.+)\.lora_magnitude_vector(?:\.default(?:_\d+)?)?(?:\.weight)?$")
# to_q.lora.down.weight, q_proj.lora_linear_layer.up.weight
_MIDDLE = re.compile(r"^(.+)\.lora(?:_linear_layer)?\.(down|up)\.weight$")
# attn1.processor.to_q_lora.down.weight, self_attn.to_q_lora.up.weight, self_attn.k_proj.to_k_lora.down.weight
_OLD = re.compile(r"^(.+)\.to_(q|k|v|out)_lora\.(down|up)\.weight$")

# What a module may be called; anything else in an alpha_pattern is a regular expression.
_NAME = re.compile(r"^[A-Za-z0-9_.-]+$")

_ROLE = {"A": "down", "B": "up"}
_PROJECTION = re.compile(r"^(.+)\.(q|k|v|out)_proj$")


def split(key: str) -> NamedRole | Ignored | None:
    """A key in any of the three forms -> the module's path with prefix, and the role."""
    if key.startswith(("lora_", "base_model.")):
        return None
    if found := _PEFT.match(key):
        return NamedRole(found[1], _ROLE[found[2]])
    if found := _MAGNITUDE.match(key):
        return NamedRole(found[1], "magnitude")
    if found := _OLD.match(key):
        return _old(found[1], found[2], found[3])
    if found := _MIDDLE.match(key):
        return NamedRole(found[1], found[2])
    return split_suffix(key, {})


def _old(owner: str, projection: str, role: str) -> NamedRole | Ignored:
    """The first naming hung the adapters of all projections on the attention's processor."""
    if owner.endswith(".processor"):
        leaf = "to_out.0" if projection == "out" else f"to_{projection}"
        return NamedRole(f"{owner[: -len('.processor')]}.{leaf}", role)
    # A version of diffusers (issue 3437) put the four pairs of an attention below each of its projections;
    # only the pair of the projection itself ever took part.
    if doubled := _PROJECTION.match(owner):
        if doubled[2] != projection:
            reason = f"diffusers put the {projection} adapter below {doubled[2]}_proj, where it never took part"
            return Ignored(reason)
        return NamedRole(owner, role)
    return NamedRole(f"{owner}.{projection}_proj", role)


def names(architecture: Architecture) -> Names:
    """Every module under its diffusers path, with the pipeline folder in front; the denoiser also bare."""
    table: dict[str, Located] = {}
    for component in architecture.components:
        for path, location in component.diffusers.items():
            located = Located(ModuleKey(component.name, location.path), location.slice)
            table[f"{component.diffusers_prefix}.{path}"] = located
            if component.name == DENOISER:
                table[path] = located
    return table


def alpha(file: TensorSource) -> Alpha:
    """The rule of ``lora_adapter_metadata``: PEFT's LoraConfig of each component, JSON.

    ``lora_alpha`` and ``alpha_pattern`` (names or endings of names -> alpha); with ``use_rslora`` the scale is
    alpha / sqrt(rank), which is alpha * sqrt(rank) in terms of alpha / rank.

    Raises:
        CorruptFileError: it is no JSON object, or has a regular expression for a name. PEFT would evaluate one,
            but a stranger's expression may take for ever.
    """
    text = file.metadata.get(METADATA_KEY)
    if text is None:
        return no_alpha
    settings = json_object(text, f"{file.label}, metadata {METADATA_KEY}")
    for key in (key for key in settings if key.endswith(".alpha_pattern")):
        if strange := next((name for name in mapping(settings[key]) if not _NAME.match(name)), None):
            hint = "Save the LoRA again with module names there, or in kohya's format."
            raise CorruptFileError(file.label, f"{key} has the expression {strange!r}, expected a module name", hint)

    def rule(located: Located, name: str, rank: int) -> float | None:
        prefix = "unet" if located.module.component == DENOISER else located.module.component
        value = settings.get(f"{prefix}.lora_alpha")
        for pattern, special in mapping(settings.get(f"{prefix}.alpha_pattern")).items():
            if name == pattern or name.endswith(f".{pattern}"):
                value = special
                break
        number = finite(value)
        if number is None:
            return None
        return number * rank**0.5 if settings.get(f"{prefix}.use_rslora") else number

    return rule


FORMAT = Format("diffusers", "diffusers / PEFT", split, names, alpha)
