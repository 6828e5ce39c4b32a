"""Where downloads, environments and made models are kept: outside the repository, shared by all clones."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """`$LOOM_CACHE`, else the user's cache folder. Made if it is not there."""
    if chosen := os.environ.get("LOOM_CACHE"):
        folder = Path(chosen)
    elif sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "lora-loom"
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches" / "lora-loom"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lora-loom"
    folder = folder.expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold `<cache>/<name>.lock`, so that two test runs never build the same thing at once.

    Where there is no fcntl (Windows) nothing is locked: what is built is still put in place in one step.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(cache_dir() / f"{name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released when the file is closed, also when we are killed
        yield
