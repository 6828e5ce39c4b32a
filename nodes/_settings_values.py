"""What the user set, out of the inputs that stand for settings, as the engine's nested tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..lora_core.errors import ConfigError
from ._settings_table import Row
from ._settings_text import text_value

# The first choice of a combo: the preset's value holds.
PRESET = "(preset)"
YES_NO = {"yes": True, "no": False}


def values_of(rows: Mapping[str, Row], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the user set, and nothing else: ``{"network": {"alpha": 8.0}}``.

    Args:
        rows: name of an input -> its setting.
        given: name of an input -> what it holds; of combos with choices of their own, what the choice means.

    Raises:
        ConfigError: all inputs whose text cannot be read.
    """
    result: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in given.items():
        row = rows[name]
        if not is_set(row, value):
            continue
        try:
            put(result, row.name, _value(row, value))
        except ValueError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise ConfigError("settings", faults)
    return result


def put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a dotted name in nested tables."""
    *tables, key = name.split(".")
    for part in tables:
        values = values.setdefault(part, {})
    values[key] = value


def is_set(row: Row, value: Any) -> bool:
    """Whether an input holds anything else than "as the preset says"."""
    if row.is_number:
        return value is not None and value != row.unset
    return value is not None and value != PRESET and bool(str(value).strip())


def _value(row: Row, value: Any) -> Any:
    if row.kind == "true or false":
        return YES_NO[value]
    if row.choices or row.is_number:
        return value
    return text_value(row.name, row.kind, value)


def in_inputs(text: str, rows: Mapping[str, Row]) -> str:
    """A text with settings by the names of the inputs: ``data.prior.folder`` -> ``prior_folder``."""
    names = {row.name: name for name, row in rows.items()}
    known = sorted(names, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w./\\])({'|'.join(map(re.escape, known))})(?![\w.]*\w)")
    return pattern.sub(lambda found: names[found[1]], text)
