"""Copying a range of bytes from one open file to another inside the kernel, where it can."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from io import FileIO

# Large enough that the calls cost nothing, small enough that progress moves and a cancel is soon heard.
CHUNK = 32 << 20

# What the kernel says when a call does not work between these two files, though another one may.
_NOT_HERE = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM})

# (source, target, bytes, offset in the source) -> bytes copied to the target's position, 0 at the source's end
Copier = Callable[[FileIO, FileIO, int, int], int]


def copy_range(source: FileIO, target: FileIO, offset: int, count: int) -> Iterator[int]:
    """Append ``count`` bytes of ``source`` from ``offset`` at the position of ``target``; yields each step's bytes.

    ``os.copy_file_range`` (shares blocks where the file system can, else copies within the page cache), then
    ``os.sendfile``, then reading and writing. Needs unbuffered files.

    Raises:
        EOFError: the source ends before.
    """
    copiers = list(_COPIERS)
    while count:
        try:
            done = copiers[0](source, target, min(count, CHUNK), offset)
        except OSError as error:
            if error.errno not in _NOT_HERE or len(copiers) == 1:
                raise
            del copiers[0]
            continue
        if done == 0:
            raise EOFError(f"{count} bytes missing at {offset}")
        offset += done
        count -= done
        yield done


def write_all(target: FileIO, data: bytes | memoryview) -> None:
    """Write all bytes: a raw file may take fewer at a time (Linux at most 2 GiB)."""
    rest = memoryview(data).cast("B")
    while rest:
        done = target.write(rest)
        rest = rest[done:]


def _copy_file_range(source: FileIO, target: FileIO, count: int, offset: int) -> int:
    return os.copy_file_range(source.fileno(), target.fileno(), count, offset)


def _sendfile(source: FileIO, target: FileIO, count: int, offset: int) -> int:
    return os.sendfile(target.fileno(), source.fileno(), offset, count)


def _read_write(source: FileIO, target: FileIO, count: int, offset: int) -> int:
    source.seek(offset)
    data = source.read(min(count, 4 << 20))
    write_all(target, data)
    return len(data)


_COPIERS: tuple[Copier, ...] = (
    *((_copy_file_range,) if hasattr(os, "copy_file_range") else ()),
    *((_sendfile,) if hasattr(os, "sendfile") else ()),
    _read_write,
)
