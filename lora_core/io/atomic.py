"""Writing a file so that a reader sees the old one or the new one, never half of it.

The bytes go to a temporary file beside the target, are flushed to disk, and the file is renamed; then the
folder is flushed, so that the name survives a power cut as well.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Generator
from io import FileIO
from pathlib import Path

from ..errors import DiskFullError, OutputExistsError


@contextlib.contextmanager
def atomic_file(
    path: str | os.PathLike[str], *, size: int = 0, overwrite: bool = False, durable: bool = True
) -> Generator[FileIO, None, None]:
    """An unbuffered file that becomes ``path`` when the block ends without an exception.

    On any exception, a cancel (``KeyboardInterrupt``) included, the temporary file is removed and ``path`` is as
    it was.

    Args:
        path: the file to make; a symbolic link is followed.
        size: bytes that will be written, to check the free space first.
        overwrite: replace a file that is there.
        durable: wait until the bytes are on disk; False for what can be made again and is checked when read.

    Raises:
        OutputExistsError: ``path`` is there and ``overwrite`` is False.
        DiskFullError: fewer than ``size`` bytes are free.
    """
    target = Path(os.path.realpath(path))
    _refuse_existing(target, overwrite)
    free = shutil.disk_usage(target.parent).free
    if size > free:
        raise DiskFullError(target.name, size, free)
    # Hidden and without the target's suffix: nothing that lists model files picks it up.
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        # FileIO asks for mode 666, so the user's umask decides (tempfile would make the file private).
        with FileIO(str(partial), "x+") as handle:
            yield handle
            if durable:
                os.fsync(handle.fileno())
        _refuse_existing(target, overwrite)  # it may have come meanwhile
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(target.parent)


def start_flush(handle: FileIO, begin: int, end: int) -> None:
    """Tell the system to begin to write these bytes to disk, so that the flush at the end has little left to do.

    Linux starts the writing of pages that it is told are not needed; being written, they stay in memory.
    """
    if sys.platform == "linux":
        os.posix_fadvise(handle.fileno(), begin, end - begin, os.POSIX_FADV_DONTNEED)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise OutputExistsError(target.name, "It is a folder: give the name of a file.")
    if not overwrite and target.exists():
        raise OutputExistsError(target.name)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk: what was renamed stays so after a power cut."""
    if os.name == "nt":  # Windows cannot open a folder; its rename is journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
