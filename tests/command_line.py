"""What tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Result(NamedTuple):
    status: int
    out: str
    err: str


Loom = Callable[..., Result]


def one_line(text: str) -> bool:
    return text.startswith("loom: ") and text.count("\n") == 1
