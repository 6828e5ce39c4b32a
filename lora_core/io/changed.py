"""Has a file changed since it was opened? Whoever maps one has to ask before reading."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CorruptFileError

CHANGED = "changed since it was opened"
Identity = tuple[int, int, int, int]


def identity(state: os.stat_result) -> Identity:
    """What tells one file, in one state, from all others."""
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def check_unchanged(path: Path, before: Identity, label: str) -> None:
    """``CorruptFileError`` where the file was written over in place.

    A file that was replaced or deleted stays as it was for those who have it open.
    """
    try:
        now = identity(os.stat(path))
    except OSError:
        return
    if before[:2] == now[:2] and before[2:] != now[2:]:
        raise CorruptFileError(label, CHANGED, "Load it again when nothing writes to it.")
