"""``--lora FILE[:model[:clip]]``: a file and its strengths."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..numeric import finite
from ..stack import Strengths


class LoraOption(NamedTuple):
    """A file and the strengths that it gets."""

    path: Path
    strengths: Strengths


def parse_lora(text: str) -> LoraOption:
    """The numbers are read from the end, so that the name may hold colons (``C:\\loras\\ink.safetensors:0.8``).

    One number is both strengths. A file of exactly this name wins over a reading with strengths.

    Raises:
        ValueError: what stands behind the name is not a number.

    >>> parse_lora("ink.safetensors:0.8:0.5").strengths.clip
    0.5
    """
    if Path(text).exists():
        return LoraOption(Path(text), Strengths())
    parts, numbers = text.split(":"), list[float]()
    while len(parts) > 1 and len(numbers) < 2 and (number := finite(parts[-1])) is not None:
        numbers.insert(0, number)
        parts.pop()
    name, _, wrong = ":".join(parts).rpartition(":")
    # "C:x" is a drive; "ink.safetensors:x" is a strength that is no number.
    if len(name) > 1 and Path(name).suffix:
        raise ValueError(f"{text!r}: {wrong!r} is no strength; write FILE, FILE:0.8 or FILE:0.8:0.5")
    strengths = Strengths(numbers[0], numbers[-1]) if numbers else Strengths()
    return LoraOption(Path(":".join(parts)), strengths)
