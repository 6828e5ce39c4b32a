"""What is on disk: the files of a list with their sizes and times, and what lies beside each."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from ..sidecars import PICTURES, PREVIEWS, READERS


class FileState(NamedTuple):
    """A file as it was seen: absolute path, bytes, time of its last change in nanoseconds."""

    path: str
    size: int
    modified: int


def find_files(names: Iterable[str], folders: Sequence[str]) -> dict[str, FileState]:
    """Each name with the file that it stands for: in the first folder that has a file of that name.

    A name that stands for no file, a link that leads nowhere say, has size and time 0 in the first folder.
    """
    found: dict[str, FileState] = {}
    # The name is joined by hand: thousands of them are looked up while a page waits.
    roots = [folder if folder.endswith(os.sep) else folder + os.sep for folder in folders]
    for name in names:
        for root in roots:
            path = root + name
            try:
                status = os.stat(path)
            except (OSError, ValueError):
                continue
            if stat.S_ISREG(status.st_mode):
                found[name] = FileState(path, status.st_size, status.st_mtime_ns)
                break
        else:
            if roots:
                found[name] = FileState(roots[0] + name, 0, 0)
    return found


def besides(paths: Iterable[str]) -> Iterator[dict[str, str]]:
    """Folder by folder: path -> a text that changes with the sidecars and pictures beside that file; "" for none.

    A folder is listed once, however many files are in it, and only what lies beside one of them is looked at.
    """
    by_folder: dict[str, list[str]] = {}
    for path in paths:
        by_folder.setdefault(os.path.dirname(path), []).append(path)
    for folder, files in by_folder.items():
        there = _listed(folder)
        yield {path: _beside(path, there) for path in files}


def _listed(folder: str) -> dict[str, os.DirEntry[str]]:
    """The files of a folder that may lie beside a LoRA, by their names as the file system compares them."""
    try:
        with os.scandir(folder) as entries:
            return {os.path.normcase(entry.name): entry for entry in entries if entry.name.lower().endswith(_SUFFIXES)}
    except OSError:  # gone, or closed to us: the files in it say so when they are opened
        return {}


def _beside(path: str, there: dict[str, os.DirEntry[str]]) -> str:
    found: list[str] = []
    for name in _names(os.path.normcase(os.path.basename(path))):
        if entry := there.get(name):
            try:
                status = entry.stat()
            except OSError:
                continue
            found.append(f"{name}:{status.st_mtime_ns}:{status.st_size}")
    return (
        hashlib.blake2b("|".join(found).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest() if found else ""
    )


# An adapter_model.safetensors of PEFT has its settings in a file of this name.
_CONFIG = "adapter_config.json"
_SUFFIXES = (".json", ".info", ".txt", *PICTURES, *PREVIEWS)


@lru_cache(maxsize=20_000)
def _names(name: str) -> tuple[str, ...]:
    """The names of all that ``sidecars`` and ``io`` read beside a file of that name."""
    stem, _ = os.path.splitext(name)
    sidecars = [place.format(stem=stem, name=name) for place, _ in READERS]
    pictures = [f"{stem}{end}" for end in PICTURES] + [f"{stem}.preview{end}" for end in PREVIEWS]
    config = [_CONFIG] if stem == "adapter_model" else []
    return tuple(os.path.normcase(beside) for beside in [*sidecars, *pictures, *config])
