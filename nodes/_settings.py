"""Settings of the engine as inputs of a node.

Each input has a value that means "as the preset says", so that a preset holds for all that the user left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from comfy_api.latest import io

from ..lora_core.errors import MissingExtraError
from ._inputs import ADVANCED
from ._settings_table import Row
from ._settings_text import LINES, form
from ._settings_values import PRESET, YES_NO


def input_of(name: str, row: Row, advanced: bool, choices: Sequence[str] = ()) -> io.Input:
    """The input of a setting.

    Args:
        name: of the input.
        advanced: whether it is among those that the page hides at first.
        choices: in the place of the setting's own; the first stands for "as the preset says".
    """
    options: dict[str, Any] = {"optional": True, "extra_dict": ADVANCED if advanced else None}
    said = f"{row.description[:1].upper()}{row.description[1:]}".rstrip(".") + "."
    listed = list(choices) or ([PRESET, *row.choices] if row.choices else [])
    if row.kind == "true or false":
        listed = [PRESET, *YES_NO]
    if listed:
        return io.Combo.Input(name, options=listed, default=listed[0], tooltip=said, **options)
    if row.is_number:
        least = -1 if row.unset == -1 else -row.most
        limits = {"default": row.unset, "min": least, "max": row.most, "step": row.step}
        tooltip = f"{said} {row.unset}: as the preset says."
        if row.kind == "whole number":
            return io.Int.Input(name, tooltip=tooltip, **{key: int(x) for key, x in limits.items()}, **options)
        return io.Float.Input(name, tooltip=tooltip, **{key: float(x) for key, x in limits.items()}, **options)
    how = form(row.name, row.kind)
    tooltip = " ".join(part for part in (said, how, "Empty: as the preset says.") if part)
    return io.String.Input(name, default="", multiline=how == LINES, tooltip=tooltip, **options)


@contextmanager
def engine(purpose: str) -> Iterator[None]:
    """A block that imports the engine. Raises MissingExtraError where a package that it needs is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(__name__.partition(".")[0]):
            raise
        raise MissingExtraError(error.name, "train", purpose) from error
