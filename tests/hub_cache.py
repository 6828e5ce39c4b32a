"""A hub's cache with one repository in it, as huggingface_hub lays it out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, repository: str, parts: Mapping[str, Path]) -> Path:
    """Put files and folders into the snapshot of a repository's main branch; returns the snapshot's folder."""
    home = cache / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / COMMIT
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(COMMIT)
    for name, source in parts.items():
        target = snapshot / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    return snapshot
