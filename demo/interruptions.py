"""Long training that may be stopped at any time: the state on disk, and when it is time to save or to speak."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

State = dict[str, Any]


def read_state(path: Path) -> State | None:
    """What an earlier run left, or None."""
    return torch.load(path, weights_only=True) if path.exists() else None


def write_state(path: Path, state: State) -> None:
    """Write beside `path` and rename, so that a run that is ended while it writes still has the state before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


class Every:
    """`is_due()` is true once in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last = time.monotonic()

    def is_due(self) -> bool:
        now = time.monotonic()
        if now - self._last <= self.seconds:
            return False
        self._last = now
        return True
