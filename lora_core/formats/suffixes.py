"""The end of a key says what its tensor does: ``<module>.lora_down.weight``. One table for all programs.

    kohya, LyCORIS   lora_down.weight  lora_up.weight  lora_mid.weight  alpha  dora_scale  hada_w1_a  lokr_w2  ...
    PEFT             lora_A.weight  lora_B.weight  lora_B.bias  lora_magnitude_vector  hada_w1_a  oft_R.weight
    diffusers        lora.down.weight  lora_linear_layer.up.weight

LyCORIS's suffixes are the roles of ``adapters``, so a new type needs no edit here.
"""

from __future__ import annotations

import re

from ..adapters import ADAPTER_TYPES
from .base import NamedRole

# suffix -> role, where it is not the role's own name.
SUFFIXES: dict[str, str] = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_mid.weight": "mid",
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_A": "down",
    "lora_B": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_up.bias": "up_bias",
    "lora_B.bias": "up_bias",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "oft_R.weight": "oft_R",
    # sd-scripts with split_qkv, saved before its parts were joined: one tensor each for q, k and v.
    "lora_down.*.weight": "down.*",
    "lora_up.*.weight": "up.*",
    "oft_blocks.*": "oft_blocks.*",
}
ROLES = frozenset({"alpha"}).union(*(row.roles for row in ADAPTER_TYPES))
_KNOWN = {suffix: role for suffix, role in ({role: role for role in ROLES} | SUFFIXES).items() if "*" not in suffix}
_LISTS = {suffix: role for suffix, role in ({role: role for role in ROLES} | SUFFIXES).items() if "*" in suffix}

# What PEFT puts in between while a model trains, and some files keep: the adapter's name, and a number of diffusers'
# (huggingface/diffusers issue 6382). Matched from the end, in a bounded part of the key.
_LEAKED = re.compile(
    r"(?:(?<=\.lora_A)|(?<=\.lora_B))(?:_\d{1,3})?(?:\.[^.]{1,80})?(?=\.(?:weight|bias)$)"
    r"|\.default(?:_\d{1,3})?(?=(?:\.weight)?$)"
)
_LONGEST = 200


def split_suffix(key: str) -> NamedRole | None:
    """``a.b.lora_A.default.weight`` -> (``a.b``, ``down``); None where no suffix is known."""
    found = _split(key)
    if found is None:
        head, tail = key[:-_LONGEST], key[-_LONGEST:]
        plain = _LEAKED.sub("", tail, count=1)
        found = _split(head + plain) if plain != tail else None
    return found


def _split(key: str) -> NamedRole | None:
    """The longest suffix that is known wins: ``lora_A.weight`` before ``weight``."""
    last = key.rfind(".")
    second = key.rfind(".", 0, last) if last > 0 else -1
    third = key.rfind(".", 0, second) if second > 0 else -1
    for dot in (third, second, last):
        role = _KNOWN.get(key[dot + 1 :]) if dot > 0 else None
        if role is not None:
            return NamedRole(key[:dot], role)
    # A list: lora_down.0.weight, oft_blocks.3
    for dot in (third, second):
        role = _in_list(key[dot + 1 :]) if dot > 0 else None
        if role is not None:
            return NamedRole(key[:dot], role)
    return None


def _in_list(suffix: str) -> str | None:
    """``lora_down.0.weight`` -> ``down.0``"""
    name, _, rest = suffix.partition(".")
    index, dot, end = rest.partition(".")
    if not (index.isascii() and index.isdigit() and len(index) < 4):
        return None
    kind = _LISTS.get(f"{name}.*{dot}{end}")
    return kind and kind.replace("*", index)
