"""Header-only, memory-mapped reading of safetensors files.

Opening reads the header and checks it against the size of the file (``header``); no tensor byte is touched
until ``TensorRef.load``.
"""

from __future__ import annotations

import mmap
import os
import platform
import sys
from io import FileIO
from pathlib import Path
from struct import Struct

import torch

from ..errors import CorruptFileError
from .changed import CHANGED, check_unchanged, identity
from .dtypes import TORCH_DTYPES
from .header import read_header
from .tensor_ref import TensorRef, TensorSource

# How single numbers are stored, little-endian as the format wants it.
_NUMBERS = {
    "F64": Struct("<d"),
    "F32": Struct("<f"),
    "F16": Struct("<e"),
    "BF16": Struct("<f"),  # its upper half
    "I64": Struct("<q"),
    "I32": Struct("<i"),
}


class TensorFile(TensorSource):
    """A safetensors file as a mapping of key to ``TensorRef``, in the order of the data.

    Use it as a context manager or let it live as long as its tensors are wanted: the file map closes when
    the last tensor that shares it is gone.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: header or offsets contradict the file.

    >>> with TensorFile("style.safetensors") as file:            # doctest: +SKIP
    ...     file["lora_unet_mid_block...lora_down.weight"].shape
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        label = self.path.name
        with self.path.open("rb") as handle:
            state = os.fstat(handle.fileno())
            size = state.st_size
            header = read_header(handle, size, label)
            self._map = _private_map(handle.fileno())
        self._state = identity(state)
        self.data_start = 8 + header.length
        self.size = size
        refs = {
            name: TensorRef(self, name, shape, dtype, begin, end)
            for name, (dtype, shape, begin, end) in header.entries.items()
        }
        super().__init__(self.path.name, header.metadata, refs)

    def view(self, ref: TensorRef) -> torch.Tensor:
        """The tensor as a view of the file map, shape and dtype as stored.

        Raises:
            CorruptFileError: the file was written over since it was opened.
        """
        self._check_unchanged()
        dtype = TORCH_DTYPES[ref.dtype]
        if ref.numel == 0:
            return torch.empty(ref.shape, dtype=dtype)
        start = self.data_start + ref.begin
        # frombuffer wants an aligned start; the format promises 8-byte headers, not aligned tensors.
        if start % dtype.itemsize:
            raw = bytearray(self._map[start : start + ref.nbytes])
            return torch.frombuffer(raw, dtype=dtype).reshape(ref.shape)
        return torch.frombuffer(self._map, dtype=dtype, count=ref.numel, offset=start).reshape(ref.shape)

    def number(self, ref: TensorRef) -> float:
        """The value of a tensor with one element. A file has hundreds of alphas, and making tensors of them takes long.

        Raises:
            CorruptFileError: as ``view``.
        """
        read = _NUMBERS.get(ref.dtype)
        if read is None or ref.numel != 1:
            return super().number(ref)
        self._check_unchanged()
        start = self.data_start + ref.begin
        raw = self._map[start : start + ref.nbytes]
        return float(read.unpack(b"\0\0" + raw if ref.dtype == "BF16" else raw)[0])

    def forget(self, ref: TensorRef) -> None:
        """Give back its pages, which come from the file again when needed.

        Without it a pass over a large file holds all of it, though the system could take the pages back.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            # Whole pages inside the range: others may be in use by the neighbours.
            first = -(-(self.data_start + ref.begin) // mmap.PAGESIZE) * mmap.PAGESIZE
            last = (self.data_start + ref.end) // mmap.PAGESIZE * mmap.PAGESIZE
            if first < last:
                self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def _check_unchanged(self) -> None:
        """Refuse to read a file that was written over in place.

        Its bytes would be another file's, and to read a map behind the end of its file kills the process. (Whoever
        cuts a file off between this look and the reading still does: only a copy could prevent that.)
        """
        if self._map.size() < self.size:
            raise CorruptFileError(self.label, CHANGED, "Load it again when nothing writes to it.")
        check_unchanged(self.path, self._state, self.label)

    def reopen(self) -> FileIO:
        """The file as an unbuffered stream of bytes, for copying ranges of it; the caller closes it.

        Raises:
            CorruptFileError: another file lies there now.
        """
        handle = FileIO(str(self.path), "r")
        if identity(os.fstat(handle.fileno())) != self._state:
            handle.close()
            raise CorruptFileError(self.label, CHANGED, "Run again when nothing writes to it.")
        return handle

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to do: tensors that were read may outlive the block and share the map."""

    def __repr__(self) -> str:
        return f"TensorFile({self.label!r}, {len(self)} tensors)"


_X86_AND_ARM = frozenset({"x86_64", "i686", "aarch64", "armv7l"})


def _private_map(descriptor: int) -> mmap.mmap:
    """The file's bytes as a buffer. Torch wants a writable one, and nothing is ever written through it.

    Linux counts a private writable map as memory that may be needed, and refuses one larger than RAM and swap;
    MAP_NORESERVE says that it is not. Python has the constant from 3.13 on.
    """
    if sys.platform != "linux":
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000 if platform.machine() in _X86_AND_ARM else 0)
    return mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE | no_reserve, mmap.PROT_READ | mmap.PROT_WRITE)
