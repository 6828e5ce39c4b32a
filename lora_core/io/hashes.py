"""Hashes by which sites and programs know a file: full sha256, AutoV2 and AutoV3.

AutoV2 is the first 10 hex digits of the sha256 of the whole file, AutoV3 the first 12 of the sha256 of what comes
after the header (kohya's ``sshs_model_hash``): it survives an edit of the metadata.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from .header import MAX_HEADER

_CHUNK = 4 << 20


@dataclass(frozen=True, slots=True)
class FileHashes:
    """Of one file, hexadecimal.

    Args:
        sha256: of the whole file.
        body: sha256 of the bytes after the header; None where there are none, since all such files share it.
    """

    sha256: str
    body: str | None

    @property
    def autov2(self) -> str:
        return self.sha256[:10]

    @property
    def autov3(self) -> str | None:
        return self.body and self.body[:12]


def file_hashes(path: str | os.PathLike[str]) -> FileHashes:
    """Both hashes in one reading; recent results are kept by path, time and size."""
    state = os.stat(path)
    return _file_hashes(os.path.realpath(path), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=512)
def _file_hashes(path: str, mtime: int, size: int) -> FileHashes:
    return read_hashes(path)


def read_hashes(path: str | os.PathLike[str], check: Callable[[], None] | None = None) -> FileHashes:
    """As ``file_hashes``, read now; ``check`` is called now and then and may wait, or raise to stop."""
    whole, body = hashlib.sha256(), hashlib.sha256()
    with open(path, "rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        prefix = handle.read(8)
        length = int.from_bytes(prefix, "little")
        # A file of another kind has no header of this kind, and so no body.
        header = handle.read(length) if length <= min(MAX_HEADER, size) else b""
        whole.update(prefix + header)
        empty = 8 + length >= size
        while chunk := handle.read(_CHUNK):
            whole.update(chunk)
            if not empty:
                body.update(chunk)
            if check is not None:
                check()
    return FileHashes(whole.hexdigest(), None if empty else body.hexdigest())


def sha256_of(path: str | os.PathLike[str], start: int = 0, check: Callable[[], None] | None = None) -> str:
    """sha256 of a file from byte ``start`` on; ``check`` is called now and then and may raise to stop."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as handle:
        handle.seek(start)
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
            if check is not None:
                check()
    return digest.hexdigest()
