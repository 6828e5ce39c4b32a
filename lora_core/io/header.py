"""The header of a safetensors file, read and checked against the size of the file.

Layout (safetensors format): 8 bytes little-endian header length N, N bytes of JSON
``{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}``, then the data:
tensors one behind the other, nothing between them and nothing after the last.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO, cast

from ..errors import CorruptFileError
from ..types import Shape
from .dtypes import TORCH_DTYPES, itemsize

MAX_HEADER = 100_000_000  # the safetensors library refuses larger ones too
MAX_DIMENSIONS = 64  # torch's own limit
MAX_NAME = 4_000  # characters; those of real files stay below 200
# Of a header's JSON: three lists and tables and some seven commas a tensor, and the largest shards of models have some
# ten thousand tensors. Each may cost a hundred bytes of memory, where the file has spent one or two on it.
MAX_CONTAINERS = 600_000
MAX_COMMAS = 3_000_000


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header.

    Args:
        length: of its JSON in bytes; the data starts at ``8 + length``.
        metadata: text -> text.
        entries: name -> (dtype, shape, begin, end), in the order of the data.
    """

    length: int
    metadata: dict[str, str]
    entries: dict[str, tuple[str, Shape, int, int]]


# How files of other kinds begin that are given for safetensors.
_DOWNLOAD = "The download failed: get the file again."
_OTHER_KINDS = (
    (b"PK", "a pickle (PyTorch .pt/.ckpt)", "Convert it to safetensors first."),
    (b"\x80", "a pickle (PyTorch .pt/.ckpt)", "Convert it to safetensors first."),
    (b"<", "a web page", _DOWNLOAD),
    (b"{", "a text (JSON)", _DOWNLOAD),
    (b"GGUF", "a GGUF file", "GGUF is not supported: use the safetensors file."),
    (b"version ", "a Git LFS pointer", "Run `git lfs pull` to get the file itself."),
)


def read_header(handle: BinaryIO, size: int, label: str) -> Header:
    """Parse and check the header of a safetensors file of ``size`` bytes; ``CorruptFileError`` says what is wrong."""
    prefix = handle.read(8)
    if len(prefix) < 8:
        raise CorruptFileError(label, f"only {len(prefix)} bytes long, a safetensors file has at least 8")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER or 8 + length > size:
        for start, what, hint in _OTHER_KINDS:
            if prefix.lstrip().startswith(start):
                raise CorruptFileError(label, f"{what}, not safetensors", hint)
        raise CorruptFileError(label, f"header says {length} bytes, the file has {size}: truncated or not safetensors")
    raw = handle.read(length)
    if raw.count(b"[") + raw.count(b"{") > MAX_CONTAINERS or raw.count(b",") > MAX_COMMAS:
        raise CorruptFileError(label, f"its header of {length} bytes has more entries than any file of tensors")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique(label))
    except CorruptFileError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or a number of 4300 digits
        raise CorruptFileError(label, f"header is not JSON ({error})") from None
    if b"\\u" in raw:
        _require_text(header, label)
    if not isinstance(header, dict):
        raise CorruptFileError(label, f"header is a JSON {type(header).__name__}, expected an object")
    table = cast("dict[str, Any]", header)
    metadata = _metadata(table.pop("__metadata__", None), label)
    entries = {name: _entry(name, fields, size - 8 - length, label) for name, fields in table.items()}
    ordered = sorted(entries.items(), key=lambda item: (item[1][2], item[1][3]))
    _check_coverage(ordered, size - 8 - length, label)
    return Header(length, metadata, dict(ordered))


def _require_text(header: object, label: str) -> None:
    """An escape can stand for half a character, which could be neither printed nor written again."""
    try:
        json.dumps(header, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise CorruptFileError(label, f"header is no valid text ({error})") from None


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
    if len(name) > MAX_NAME:
        raise CorruptFileError(label, f"a tensor's name has {len(name)} characters: {name[:60]!r}...")
    try:
        dtype, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
        numbers = [*shape, begin, end]
    except (KeyError, TypeError, ValueError):
        raise CorruptFileError(label, f"{name}: header entry lacks dtype, shape or data_offsets") from None
    if not isinstance(dtype, str) or dtype not in TORCH_DTYPES:
        hint = "Update LoRA Loom or torch."
        raise CorruptFileError(label, f"{name}: dtype {dtype!r} is not known to this version", hint)
    # set(map(type, ...)): True is an int too, but is no size.
    if not isinstance(shape, list) or set(map(type, numbers)) != {int} or min(numbers) < 0:
        raise CorruptFileError(label, f"{name}: shape {shape} or offsets [{begin}, {end}] are not whole numbers >= 0")
    sizes = cast("list[int]", shape)
    # The bytes bound the shape, but for one with a zero in it.
    if len(sizes) > MAX_DIMENSIONS or (begin == end and prod(max(size, 1) for size in sizes) > sys.maxsize):
        raise CorruptFileError(label, f"{name}: no tensor can have the shape {str(sizes)[:80]}")
    if not begin <= end <= data_size:
        raise CorruptFileError(
            label, f"{name}: bytes {begin} to {end}, but only {data_size} bytes of data are there: truncated"
        )
    expected = prod(sizes) * itemsize(dtype)
    if end - begin != expected:
        raise CorruptFileError(label, f"{name}: {end - begin} bytes, expected {expected} for {dtype} {sizes}")
    return dtype, tuple(sizes), begin, end


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
