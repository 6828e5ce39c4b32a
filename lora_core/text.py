"""Text that is safe to print: without characters that hide something or steer a terminal, and on one line."""

from __future__ import annotations

import unicodedata

# Cc control, Cs lone surrogates (they cannot be written as UTF-8), Co private use.
_DROPPED = frozenset({"Cc", "Cs", "Co"})
# Marks that turn the direction of what follows: they make a text look like another.
_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_GAP = " [...] "


def visible(char: str) -> bool:
    """Whether a character shows as itself, line ends and tabs included."""
    return char in "\n\t" or (char not in _DIRECTIONS and unicodedata.category(char) not in _DROPPED)


def one_line(text: str, limit: int) -> str:
    """The text on one line, without invisible characters and at most ``limit`` long.

    What is too long loses its middle: a message begins with what is wrong and ends with what to do.

    >>> one_line("ink\\x1b[31m\\nsecond   line", 100)
    'ink[31m second line'
    """
    if len(text) > limit:
        end = limit // 4
        text = text[: limit - end - len(_GAP)] + _GAP + text[-end:]
    if text.isascii() and text.isprintable():  # nearly all, and a file may have thousands of faults
        return " ".join(text.split())
    # A line end of any kind parts words, so it becomes a space before control characters go.
    return " ".join("".join(char for char in text if char.isspace() or visible(char)).split())
