"""Everything about one LoRA for a page: cleaned and bounded, for all of it is text of strangers."""

from __future__ import annotations

from collections.abc import Mapping

from ..sidecars import Sidecar
from ..untrusted import clean, mapping, sequence

Json = dict[str, object]

MAX_VALUE = 20_000
MAX_KEYS = 1_000
# Keys of tensors that a page lists; a checkpoint among the LoRAs has thousands.
MAX_TENSORS = 2_000
_CUT = " [...]"
_PICTURES = ("modelspec.thumbnail", "model_spec.thumbnail")


def shown_metadata(header: Mapping[str, str]) -> dict[str, str]:
    """A header's metadata without control characters, long values cut with `` [...]``, and without the thumbnail."""
    shown: dict[str, str] = {}
    for key, value in list(header.items())[:MAX_KEYS]:
        if key not in _PICTURES:
            shown[clean(key, 200)] = clean(value, MAX_VALUE) + (_CUT if len(value) > MAX_VALUE else "")
    return shown


def shown_report(report: Json, file: str) -> Json:
    """The report of ``loom inspect --json``; long lists of keys are cut, and ``"left_out"`` says how many are missing.

    Args:
        file: the bare name.
    """
    tensors = mapping(report["tensors"])
    unmatched, misfit = sequence(tensors["unmatched"]), sequence(tensors["misfit"])
    ignored = mapping(tensors["ignored"])
    left_out = sum(max(0, len(part) - MAX_TENSORS) for part in (unmatched, misfit, ignored))
    shown = tensors | {
        "unmatched": unmatched[:MAX_TENSORS],
        "ignored": dict(list(ignored.items())[:MAX_TENSORS]),
        "misfit": misfit[:MAX_TENSORS],
    }
    return report | {"file": file, "tensors": shown | ({"left_out": left_out} if left_out else {})}


def shown_sidecar(sidecar: Sidecar) -> Json:
    """What stands beside a file."""
    return {
        "description": sidecar.description,
        "base": sidecar.base,
        "negative": sidecar.negative,
        "notes": sidecar.user_notes,
        "trigger_words": list(sidecar.trigger_words),
        "strength": sidecar.strength,
        "strength_min": sidecar.strength_min,
        "strength_max": sidecar.strength_max,
        "sources": list(sidecar.sources),
        "warnings": list(sidecar.notes),
    }
