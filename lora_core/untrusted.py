"""Text from files of strangers: bounded, and without characters that hide or break things.

Whoever shows such a text in a page still has to escape it; nothing here makes HTML safe.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from .errors import CorruptFileError
from .text import visible

MAX_FILE = 1_000_000
MAX_TEXT = 20_000
MAX_WORD = 200
MAX_WORDS = 64


def clean(value: object, limit: int = MAX_TEXT) -> str:
    """The value as a text without control characters, at most ``limit`` long; "" for what is no text.

    >>> clean("ink\\x00 style\\r\\n")
    'ink style'
    """
    if not isinstance(value, str):
        return ""
    kept = "".join(char for char in value[: limit * 2] if visible(char))
    return kept.strip()[:limit].rstrip()


def words(texts: Iterable[object]) -> tuple[str, ...]:
    """Prompt words of comma-separated texts, cleaned, each once; commas inside brackets do not separate.

    >>> words(["ink style, (bold, black:1.2)", "Ink Style"])
    ('ink style', '(bold, black:1.2)')
    """
    found: dict[str, str] = {}
    for text in texts:
        for part in _parts(clean(text)):
            word = clean(part, MAX_WORD)
            if word:
                found.setdefault(word.casefold(), word)
    return tuple(found.values())[:MAX_WORDS]


def _parts(text: str) -> list[str]:
    """Split at line ends, and at commas outside brackets. ``\\(`` is a bracket that is part of a name."""
    parts, depth, before = [""], 0, ""
    for char in text:
        if before != "\\":
            depth += (char in "([") - (char in ")]")
        if char == "\n" or (char == "," and depth <= 0):
            parts.append("")
            depth = 0
        else:
            parts[-1] += char
        before = char
    return parts


def read_text(path: Path) -> str:
    """A small text file, UTF-8 with or without a mark; ``CorruptFileError`` where it is not one."""
    try:
        with path.open("rb") as handle:
            raw = handle.read(MAX_FILE + 1)
    except OSError as error:
        raise CorruptFileError(path.name, f"cannot be read ({error.strerror})", "Check its permissions.") from None
    if len(raw) > MAX_FILE:
        raise CorruptFileError(path.name, f"larger than {MAX_FILE} bytes, so it is not read", "Is it a sidecar file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorruptFileError(path.name, f"not UTF-8 text (byte {error.start})", "Save it again as UTF-8.") from None


def read_json(path: Path) -> dict[str, object]:
    """A small JSON file with an object in it; ``CorruptFileError`` where it is not one."""
    return json_object(read_text(path), path.name)


def json_object(text: str, label: str) -> dict[str, object]:
    """A text as a JSON object; ``label`` names it in the error."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(label, f"not JSON ({error})", "Delete it, or let its program write it again.") from None
    if not isinstance(value, dict):
        raise CorruptFileError(label, f"a JSON {type(value).__name__}, expected an object", "Delete it if it is empty.")
    return mapping(cast("object", value))


def mapping(value: object) -> dict[str, object]:
    """The value if it is a JSON object, an empty one otherwise."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def sequence(value: object) -> list[object]:
    """The value if it is a JSON array, an empty one otherwise."""
    return cast("list[object]", value) if isinstance(value, list) else []
