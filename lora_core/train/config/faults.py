"""What is wrong with settings, in words: each fault names its key, what is expected there, and what was found.

pydantic finds the faults; here its records become lines such as
``network.rnak: no such setting; did you mean network.rank?``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .keys import Setting, either, sections, settings
from .other_names import OTHER_NAMES

BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
MAX_SHOWN = 60


def faults_of(error: ValidationError) -> list[str]:
    """Each fault once, in the order of the file."""
    # A value that fits no part of a union has a record for each part; all say the same here.
    return list(dict.fromkeys(_fault(record) for record in error.errors(include_url=False)))


def _fault(record: ErrorDetails) -> str:
    name, setting = _place(record["loc"])
    kind, value, context = record["type"], record["input"], record.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown(name)
    if setting is None:
        return f"{name}: expected a table [{name}], got {_show(value)}"
    if kind == "missing" and name == ".".join(str(part) for part in record["loc"]):
        return f"{name}: is missing; give the {setting.description}"
    if kind in BOUNDS:
        words, bound = BOUNDS[kind]
        return f"{name}: expected {words} {context[bound]:g}, got {_show(value)}"
    if kind == "literal_error":
        return f"{name}: expected {setting.kind}, got {_show(value)}{_did_you_mean(value, setting.choices)}"
    if kind == "value_error":
        return f"{name}: {context['error']}"
    if kind == "finite_number":
        return f"{name}: expected a finite number, got {_show(value)}"
    if kind == "string_too_short":
        return f"{name}: is empty; give the {setting.description}"
    if kind == "string_pattern_mismatch":
        return f"{name}: expected a name without / and \\, got {_show(value)}"
    inside = isinstance(record["loc"][-1], int) and kind != "missing"
    return f"{name}: expected {_article(setting.kind)}, got {_show(value)}{' in it' if inside else ''}"


def _place(location: Sequence[int | str]) -> tuple[str, Setting | None]:
    """The setting that a record is about: its longest part that is one, without indices and union branches."""
    parts = [str(part) for part in location]
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in settings():
            return name, settings()[name]
    return ".".join(parts), None


def unknown(name: str) -> str:
    """``network.rnak: no such setting; did you mean network.rank?``; also for sections."""
    return f"{name}: no such setting; {_advice(name)}"


def _advice(name: str) -> str:
    section, _, key = name.rpartition(".")
    known = settings()
    if key in OTHER_NAMES:
        return f"here it is {OTHER_NAMES[key]}"
    siblings = {setting.key: setting.name for setting in known.values() if setting.section == section}
    siblings |= {table.rpartition(".")[2]: table for table in sections() if table.rpartition(".")[0] == section}
    if near := get_close_matches(key, siblings, n=1, cutoff=0.7):
        return f"did you mean {siblings[near[0]]}?"
    if elsewhere := [setting.name for setting in known.values() if setting.key == key]:
        return f"did you mean {either(elsewhere)}?"
    if near := get_close_matches(name, known if section else [*known, *sections()], n=1, cutoff=0.7):
        return f"did you mean {near[0]}?"
    if siblings and section:
        return f"[{section}] has {', '.join(siblings)}"
    return f"there are the tables {', '.join(sections())}"


def _did_you_mean(value: object, choices: Sequence[str]) -> str:
    near = get_close_matches(str(value).lower(), choices, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _article(kind: str) -> str:
    return kind if kind.startswith(("text", "true")) else f"a {kind}"


def _show(value: Any) -> str:
    """A value as it may stand in a line, not too long."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, Mapping):
        text = "a table"
    else:
        text = repr(list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
