"""Header-only, memory-mapped reading of safetensors files.

Opening reads the header and checks it against the size of the file; no tensor byte is touched until
``TensorRef.load``. Layout (safetensors format): 8 bytes little-endian header length N, N bytes of JSON
``{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}``, then the data.
"""

from __future__ import annotations

import json
import mmap
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, cast

import torch

from ..errors import CorruptFileError
from ..types import Shape
from .dtypes import TORCH_DTYPES, itemsize
from .tensor_ref import TensorRef, TensorSource

# The safetensors library refuses larger headers too.
MAX_HEADER = 100_000_000


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
            size = os.fstat(handle.fileno()).st_size
            header = _read_header(handle.read(8), handle, size, label)
            # A private map: torch wants a writable buffer, and nothing is ever written through it.
            self._map = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)
        self.data_start = 8 + header.length
        self.size = size
        refs = {
            name: TensorRef(self, name, shape, dtype, begin, end)
            for name, (dtype, shape, begin, end) in header.entries.items()
        }
        super().__init__(self.path.name, header.metadata, refs)

    def view(self, ref: TensorRef) -> torch.Tensor:
        """The tensor as a view of the file map, shape and dtype as stored."""
        dtype = TORCH_DTYPES[ref.dtype]
        if ref.numel == 0:
            return torch.empty(ref.shape, dtype=dtype)
        start = self.data_start + ref.begin
        # frombuffer wants an aligned start; the format promises 8-byte headers, not aligned tensors.
        if start % dtype.itemsize:
            raw = bytearray(self._map[start : start + ref.nbytes])
            return torch.frombuffer(raw, dtype=dtype).reshape(ref.shape)
        return torch.frombuffer(self._map, dtype=dtype, count=ref.numel, offset=start).reshape(ref.shape)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to do: tensors that were read may outlive the block and share the map."""

    def __repr__(self) -> str:
        return f"TensorFile({self.label!r}, {len(self)} tensors)"


@dataclass(frozen=True, slots=True)
class _Header:
    length: int
    metadata: dict[str, str]
    entries: dict[str, tuple[str, Shape, int, int]]


def _read_header(prefix: bytes, handle: Any, size: int, label: str) -> _Header:
    """Parse and check the header of a safetensors file of ``size`` bytes."""
    if len(prefix) < 8:
        raise CorruptFileError(label, f"only {len(prefix)} bytes long, a safetensors file has at least 8")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER or 8 + length > size:
        if prefix[:2] == b"PK" or prefix[:1] == b"\x80":
            raise CorruptFileError(
                label, "a pickle (PyTorch .pt/.ckpt), not safetensors", "Convert it to safetensors first."
            )
        if prefix.lstrip()[:1] == b"<":
            raise CorruptFileError(label, "a web page, not safetensors (a failed download)")
        raise CorruptFileError(label, f"header says {length} bytes, the file has {size}: truncated or not safetensors")
    raw = handle.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique(label))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CorruptFileError(label, f"header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise CorruptFileError(label, f"header is a JSON {type(header).__name__}, expected an object")
    table = cast("dict[str, Any]", header)
    metadata = _metadata(table.pop("__metadata__", None), label)
    entries = {name: _entry(name, fields, size - 8 - length, label) for name, fields in table.items()}
    ordered = sorted(entries.items(), key=lambda item: (item[1][2], item[1][3]))
    _check_coverage(ordered, size - 8 - length, label)
    return _Header(length, metadata, dict(ordered))


def _unique(label: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise CorruptFileError(label, f"key {twice!r} stands twice in the header")
        return result

    return pairs


def _metadata(value: Any, label: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CorruptFileError(label, "__metadata__ is not an object of strings")
    # Some writers store numbers; they are readable, and the reference library alone insists on strings.
    items = cast("dict[str, Any]", value).items()
    return {key: text if isinstance(text, str) else json.dumps(text) for key, text in items}


def _entry(name: str, fields: Any, data_size: int, label: str) -> tuple[str, Shape, int, int]:
    try:
        dtype, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
        numbers = [*shape, begin, end]
    except (KeyError, TypeError, ValueError):
        raise CorruptFileError(label, f"{name}: header entry lacks dtype, shape or data_offsets") from None
    if dtype not in TORCH_DTYPES:
        raise CorruptFileError(
            label, f"{name}: dtype {dtype!r} is not known to this version", "Update LoRA Loom or torch."
        )
    if any(type(number) is not int or number < 0 for number in numbers):
        raise CorruptFileError(label, f"{name}: shape {shape} or offsets [{begin}, {end}] are not whole numbers >= 0")
    if not begin <= end <= data_size:
        raise CorruptFileError(
            label, f"{name}: bytes {begin} to {end}, but only {data_size} bytes of data are there: truncated"
        )
    expected = prod(shape) * itemsize(dtype)
    if end - begin != expected:
        raise CorruptFileError(label, f"{name}: {end - begin} bytes, expected {expected} for {dtype} {list(shape)}")
    return str(dtype), tuple(shape), begin, end


def _check_coverage(ordered: list[tuple[str, tuple[str, Shape, int, int]]], data_size: int, label: str) -> None:
    """Tensors lie one behind the other and fill the data section."""
    position = 0
    for name, (_, _, begin, end) in ordered:
        if begin < position:
            raise CorruptFileError(label, f"{name}: overlaps the tensor before it ({begin} < {position})")
        if begin > position:
            raise CorruptFileError(label, f"{name}: {begin - position} bytes before it belong to no tensor")
        position = end
    if position != data_size:
        raise CorruptFileError(label, f"{data_size - position} bytes behind the last tensor belong to no tensor")
