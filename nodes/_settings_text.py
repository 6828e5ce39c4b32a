"""Texts of inputs -> values of settings, as the engine's TOML has them."""

from __future__ import annotations

import re
from typing import Any

# Of these an entry may hold a comma.
ONE_A_LINE = ("samples.prompts", "validation.prompts", "network.exclude")
LINES = "One a line."
LIST = "One a line, or with commas between."
TABLE = "name = value, one a line or with commas between."
_NEXT_NAME = re.compile(r",(?=[^,=]*=)")
_QUOTED = re.compile(r"""(["'])(.*)\1""")


def form(name: str, kind: str) -> str:
    """How a value is written in a text input; "" for what is one text."""
    if name in ONE_A_LINE:
        return LINES
    if kind.startswith("table"):
        return TABLE
    return LIST if "list of" in kind else ""


def text_value(name: str, kind: str, text: str) -> Any:
    """What a text means for a setting.

    Raises:
        ValueError: what is wrong with it, without the setting's name.

    >>> text_value("validation.timesteps", "list of numbers", "0.2, 0.5")
    [0.2, 0.5]
    """
    if kind.startswith("table"):
        return _table(text, words=kind == "table of texts")
    if kind == "text or list of texts":
        # Words such as attention+ff, or an expression, which may hold commas.
        parts = [text.strip()] if text.startswith("regex:") else _parts(text)
        return parts[0] if len(parts) == 1 else parts
    if "list of" not in kind:
        return text.strip()
    if kind == "list of texts":
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines if name in ONE_A_LINE else _parts(text)
    return [_number(part) for part in _parts(text.strip().removeprefix("[").removesuffix("]"))]


def _parts(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]


def _number(text: str) -> int | float:
    value = _scalar(text)
    if isinstance(value, bool | str):
        raise ValueError(f"expected numbers, got {text!r}")
    return value


def _table(text: str, words: bool) -> dict[str, Any]:
    text = text.strip().removeprefix("{").removesuffix("}")
    lines = [part.strip() for line in text.splitlines() for part in _NEXT_NAME.split(line) if part.strip()]
    found: dict[str, Any] = {}
    for line in lines:
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not name:
            raise ValueError(f"expected name = value, got {line!r}")
        if (name := _unquoted(name)) in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = _unquoted(value) if words else _scalar(value)
    return found


def _scalar(text: str) -> bool | int | float | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return _unquoted(text)


def _unquoted(text: str) -> str:
    quoted = _QUOTED.fullmatch(text)
    return quoted[2] if quoted else text
