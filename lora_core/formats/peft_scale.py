"""alpha / rank as PEFT's configurations state it: ``adapter_config.json``, and diffusers' metadata of the same content.

``lora_alpha`` (LoRA) or ``alpha`` (LoHa, LoKr), ``r``, ``alpha_pattern`` and ``rank_pattern`` (name or ending of a
name -> value); with ``use_rslora`` the scale is alpha / sqrt(rank). Source: PEFT's tuners.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import CorruptFileError
from ..numeric import finite
from ..text import one_line
from ..untrusted import mapping

# What a module may be called; anything else in a pattern is a regular expression.
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_HINT = "Correct it there, or save the LoRA again in kohya's format."
# Settings that decide the scale.
_NUMBERS = frozenset({"r", "lora_alpha", "alpha"})


def check_settings(settings: Mapping[str, object], file: str) -> None:
    """Refuse what would be another scale than PEFT's in silence.

    Regular expressions for names: PEFT would evaluate one, but a stranger's expression may take for ever. Texts, NaN
    and the like where a number is due.

    Raises:
        CorruptFileError: either is there.
    """
    for key, value in settings.items():
        if key.rpartition(".")[2] in _NUMBERS and value is not None and finite(value) is None:
            raise CorruptFileError(file, f"{key} is {one_line(repr(value), 60)}, expected a number", _HINT)
        if not key.endswith(("alpha_pattern", "rank_pattern")):
            continue
        if strange := next((name for name in mapping(value) if not _NAME.fullmatch(name)), None):
            raise CorruptFileError(file, f"{key} has the expression {strange!r}, expected a module name", _HINT)
        for name, number in mapping(value).items():
            # Ranks are lists in AdaLoRA's; what counts of them is in the shapes.
            if key.endswith("alpha_pattern") and finite(number) is None:
                raise CorruptFileError(
                    file, f"{key} of {name} is {one_line(repr(number), 60)}, expected a number", _HINT
                )


def config_scale(settings: Mapping[str, object], name: str, rank: int | None) -> float | None:
    """alpha / rank of the module with this name; None where the configuration states no alpha.

    Args:
        settings: one PEFT configuration.
        name: the module's path.
        rank: of the stored factors, which decides; None where they do not show it (a whole LoKr factor).
    """
    alpha = finite(settings.get("lora_alpha", settings.get("alpha")))
    alpha = _special(settings.get("alpha_pattern"), name, alpha)
    if rank is None:
        stated = _special(settings.get("rank_pattern"), name, finite(settings.get("r")))
        rank = int(stated) if stated else None
    if alpha is None or not rank or rank < 1:
        return None
    return alpha / rank**0.5 if settings.get("use_rslora") else alpha / rank


def _special(patterns: object, name: str, default: float | None) -> float | None:
    """The value for the longest ending of the name that has one; looked up, as a file may hold many patterns."""
    values = mapping(patterns)
    if not values:
        return default
    ending = name
    while ending:
        if ending in values:
            return finite(values[ending])
        ending = ending.partition(".")[2]
    return default
