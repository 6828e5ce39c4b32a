"""Streaming, atomic writing of safetensors files: one pass, few tensors in memory at a time.

All names, dtypes and shapes are known before the first byte, so the header is written first. Tensors that are
taken over from another file as they are go from file to file inside the kernel, neighbours as one range;
others are computed when their turn comes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import FileIO
from math import prod
from pathlib import Path

import torch

from ..errors import CorruptFileError
from ..types import Shape
from .ahead import Ahead
from .atomic import atomic_file, start_flush
from .copying import copy_range, write_all
from .dtypes import NAMES, itemsize
from .header import MAX_HEADER
from .tensor_file import TensorFile
from .tensor_ref import TensorRef

Content = TensorRef | Callable[[], torch.Tensor]
Progress = Callable[[int, int], None]
Late = Callable[[Path], Mapping[str, str]]

_FLUSH = 64 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor to be written.

    Args:
        name, dtype, shape: as the header has them, dtype by its name (``"F16"``).
        content: a tensor of a file whose bytes are taken over, or a function that computes the tensor.
        last: compute it when all others are written: what it is follows from one that lies behind it.
    """

    name: str
    dtype: str
    shape: Shape
    content: Content
    last: bool = False

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * itemsize(self.dtype)


def stream_safetensors(
    path: str | os.PathLike[str],
    entries: Sequence[Entry],
    metadata: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    late: Late | None = None,
) -> None:
    """Write a file; ``path`` is untouched until all of it is on disk.

    Args:
        path: the file to make.
        entries: in the order in which they are to lie in the file; a few are computed ahead, in threads.
        metadata: text -> text.
        overwrite: replace a file that is there.
        progress: called with (bytes done, bytes in all) after each tensor and each 32 MiB; what it raises
            stops the writing and leaves nothing behind.
        late: called with the temporary file when all tensors are in it; returns the metadata to put in the
            place of the first, such as a hash that was not known. It may not be longer.

    Raises:
        OutputExistsError, DiskFullError: see ``atomic_file``.
        CorruptFileError: a file that tensors are taken from changed or ended meanwhile.
    """
    header = build_header(entries, metadata or {})
    total = len(header) + sum(entry.nbytes for entry in entries)
    runs = list(_runs(entries))
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(atomic_file(path, size=total, overwrite=overwrite))
        computed = stack.enter_context(
            Ahead([partial(_bytes, run) for run in runs if isinstance(run, Entry) and not run.last])
        )
        report = _Progress(target, progress, total)
        write_all(target, header)
        report.add(len(header))
        sources: dict[Path, FileIO] = {}
        for run in runs:
            if isinstance(run, Entry):
                write_all(target, bytes(run.nbytes) if run.last else next(computed))
                report.add(run.nbytes)
            else:
                if run.file.path not in sources:
                    sources[run.file.path] = stack.enter_context(run.file.reopen())
                _copy(run, sources[run.file.path], target, report)
        position = len(header)
        for entry in entries:
            if entry.last:
                os.lseek(target.fileno(), position, os.SEEK_SET)
                write_all(target, _bytes(entry))
            position += entry.nbytes
        if late is not None:
            os.lseek(target.fileno(), 0, os.SEEK_SET)
            write_all(target, build_header(entries, late(Path(str(target.name))), len(header)))


def build_header(entries: Sequence[Entry], metadata: Mapping[str, str], length: int | None = None) -> bytes:
    """The first bytes of a file: 8 of length, the JSON, and spaces so that the data starts at a multiple of 8."""
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for entry in entries:
        if entry.name in table or entry.name == "__metadata__":
            raise ValueError(f"two tensors named {entry.name!r}")
        end = position + entry.nbytes
        table[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    size = length - 8 if length is not None else len(text) + -len(text) % 8
    if len(text) > size or size > MAX_HEADER:
        raise ValueError(f"a header of {len(text)} bytes does not fit into {min(size, MAX_HEADER)}")
    return size.to_bytes(8, "little") + text.ljust(size)


@dataclass(frozen=True, slots=True)
class _Range:
    """Bytes of one file that are taken over: neighbouring tensors are one range."""

    file: TensorFile
    begin: int
    end: int


def _runs(entries: Sequence[Entry]) -> Iterator[Entry | _Range]:
    """The entries in order, neighbours in one file joined; what is not in a file stays an entry."""
    current: _Range | None = None
    for entry in entries:
        ref, file = entry.content, getattr(entry.content, "source", None)
        if isinstance(ref, TensorRef) and isinstance(file, TensorFile):
            if ref.nbytes != entry.nbytes:
                raise ValueError(f"{entry.name}: {ref.nbytes} bytes cannot be taken over as {entry.nbytes}")
            if current is not None and current.file is file and current.end == ref.begin:
                current = _Range(file, current.begin, ref.end)
                continue
        if current is not None:
            yield current
            current = None
        if isinstance(ref, TensorRef) and isinstance(file, TensorFile):
            current = _Range(file, ref.begin, ref.end)
        else:
            yield entry
    if current is not None:
        yield current


def _copy(run: _Range, source: FileIO, target: FileIO, report: _Progress) -> None:
    try:
        for done in copy_range(source, target, run.file.data_start + run.begin, run.end - run.begin):
            report.add(done)
    except EOFError as error:
        raise CorruptFileError(run.file.label, f"ended while it was read ({error})") from None


def _bytes(entry: Entry) -> memoryview:
    """The tensor's bytes as they lie in a file (little endian, row major), without a copy where possible."""
    content = entry.content
    tensor = content.load() if isinstance(content, TensorRef) else content()
    if tuple(tensor.shape) != entry.shape or NAMES.get(tensor.dtype) != entry.dtype:
        raise ValueError(f"{entry.name}: {tensor.dtype} {list(tensor.shape)} is not {entry.dtype} {list(entry.shape)}")
    if not entry.nbytes:
        return memoryview(b"")
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


class _Progress:
    """Counts bytes, tells the caller, and has them written to disk a good deal at a time."""

    def __init__(self, target: FileIO, tell: Progress | None, total: int) -> None:
        self.target, self.tell, self.total = target, tell, total
        self.done = self.flushed = 0

    def add(self, count: int) -> None:
        self.done += count
        if self.done - self.flushed >= _FLUSH:
            start_flush(self.target, self.flushed, self.done)
            self.flushed = self.done
        if self.tell is not None:
            self.tell(self.done, self.total)
