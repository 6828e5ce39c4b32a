"""What is in a folder of LoRA files, from their headers alone: ``loom inspect FOLDER``.

No tensor is read, not even an alpha, so a thousand files cost what their headers cost. The index says what a file is
and for which model; how its numbers are, ``inspect_file`` says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from .collection import no_collection
from .errors import LoomError
from .inspect import describe
from .io import TensorRef, TensorSource, open_tensors
from .mapping import map_source
from .metadata import read_metadata
from .names import EXTENSIONS

Json = dict[str, object]


def index_folder(
    folder: str | os.PathLike[str],
    known: Iterable[Json] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Json]:
    """Each LoRA file in a folder and its subfolders, in the order of their names.

    Args:
        known: entries of an earlier index; those of files with the same size and time are taken over.
        progress: called with (files done, all files).

    Returns:
        Per file the report of ``inspect.describe`` without metadata, and ``"path"`` in the folder with slashes,
        ``"title"`` (by its metadata), ``"size"`` and ``"modified"`` (nanoseconds). For a file that cannot be read:
        path, size, modified and ``"error"``, one line.
    """
    root = Path(folder)
    files = list(lora_files(root))
    before = {(entry["path"], entry["size"], entry["modified"]): entry for entry in known}
    entries: list[Json] = []
    with no_collection():  # sources are closed: what a header leaves goes without a collector
        for done, file in enumerate(files):
            progress(done, len(files))
            entry = _state(root, file)
            same = before.get((entry["path"], entry["size"], entry["modified"]))
            entries.append(same or entry | _describe(file))
    progress(len(files), len(files))
    return entries


def lora_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Files that by their names may be LoRAs; links are followed, each folder once."""
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        place = os.path.realpath(where)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        yield from (Path(where) / name for name in sorted(names) if name.lower().endswith(EXTENSIONS))


def _state(root: Path, file: Path) -> Json:
    try:
        state = file.stat()
        size, modified = state.st_size, state.st_mtime_ns
    except OSError:  # a link that leads nowhere; opening it says so
        size, modified = 0, 0
    return {"path": file.relative_to(root).as_posix(), "size": size, "modified": modified}


class Look(NamedTuple):
    """What a header says: the report of ``inspect.describe`` without metadata, and the metadata themselves."""

    report: Json
    metadata: Mapping[str, str]


def look_at(file: Path) -> Look:
    """What a file is, from its header alone.

    Raises:
        LoomError: it is no LoRA, broken, or for a model that is not known.
        OSError: it cannot be opened.
    """
    source = _Unread(open_tensors(file))
    try:
        adapter = map_source(source)
        report = describe(adapter, path=file)
    finally:
        source.close()
    del report["metadata"]
    return Look(report, adapter.metadata)


def fault_of(file: Path, error: LoomError | OSError) -> str:
    """One line on why a file could not be looked at, without the folders that it lies in."""
    if isinstance(error, LoomError):
        return error.message
    return f"{file.name}: {error.strerror or type(error).__name__}."


def _describe(file: Path) -> Json:
    try:
        look = look_at(file)
    except (LoomError, OSError) as error:
        return {"error": fault_of(file, error)}
    return look.report | {"title": read_metadata(look.metadata).title}


class _Unread(TensorSource):
    """A source whose alphas are 1, whatever they are: a page of the disk each, for a number that the index has not."""

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        refs = {name: TensorRef(self, name, ref.shape, ref.dtype, ref.begin, ref.end) for name, ref in source.items()}
        super().__init__(source.label, source.metadata, refs, source.notes)

    def close(self) -> None:
        self._source.close()
        super().close()

    def view(self, ref: TensorRef) -> torch.Tensor:
        return torch.ones(ref.shape) if ref.numel == 1 else self._source[ref.name].load()
