"""Numbers as people and other programs write them in rows, prompts and block weights."""

from __future__ import annotations

from math import isfinite


def finite(value: object) -> float | None:
    """The value as a finite float, or None where it is not one.

    Numbers and texts of numbers are taken, for some packs keep their strengths as text. True and False are
    not numbers here, and neither are NaN and infinity: a strength of that kind destroys a model.

    >>> finite("0.8"), finite(True), finite("nan"), finite("R")
    (0.8, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    # float("1_0") is 10.0 in Python and a typing error anywhere else.
    return number if isfinite(number) and "_" not in str(value) else None


def shown(number: float) -> str:
    """The shortest text that reads back as the same number: ``1``, ``0.8``."""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
