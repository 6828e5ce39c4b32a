"""Pickles of tensors (``.pt``, ``.bin``, ``.ckpt``), as ``torch.save`` writes and ``weights_only`` reads them.

A pickle is a program. So the file is first read as an outline (``pickle_outline``): names, shapes and what the file
must hold for them, without making any of it. What could run code, or claims more memory than the file has bytes, is
an error then. Tensors are made when the first is asked for, by ``torch.load(weights_only=True)``, mapped from the file
where it is a zip. Elder files (before torch 1.6) are no zip, and are read into memory as a whole.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch

from ..errors import CorruptFileError
from ..text import one_line
from .changed import check_unchanged, identity
from .dtypes import NAMES
from .header import MAX_NAME
from .pickle_content import sort_content
from .pickle_outline import Machine, PickleFault, Sequence, Storage, TensorOutline
from .tensor_ref import TensorRef, TensorSource
from .zip_members import Bytes, zip_members

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
_MAGIC = 0x1950A86A20F9469CFC6C  # what torch.save began its files with before they were zips
_HINT = "Get the LoRA as safetensors, or convert it with the program that wrote it."


def is_pickle(start: bytes) -> bool:
    """Whether a file that begins with these 16 bytes may be a pickle of tensors.

    A safetensors file begins with a length in eight bytes, whose first may be any and whose last four are 0.
    """
    return start.startswith(ZIP) or (start.startswith(PICKLE) and start[4:8] != bytes(4))


class TensorPickle(TensorSource):
    """A pickle of tensors as a mapping of key to ``TensorRef``; what is in it goes by ``pickle_content``.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: it is damaged, or wants more than tensors.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        label = self.path.name
        with self.path.open("rb") as handle:
            state = os.fstat(handle.fileno())
            try:
                with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    zipped = data[: len(ZIP)] == ZIP
                    root = _in_zip(data, label) if zipped else _in_a_row(data)
                content = sort_content(root)
                for name, tensor in content.tensors.items():
                    _check(name, tensor)
            except PickleFault as error:
                raise CorruptFileError(label, f"this pickle cannot be read: {error}", _HINT) from None
        # A name that ends so makes newer torch read it as safetensors, unless it is given the open file.
        self._mapped = zipped and self.path.suffix.lower() != ".safetensors"
        self._state = identity(state)
        self._numbers = content.numbers
        self.size = state.st_size
        refs = {
            name: TensorRef(self, name, tensor.shape, NAMES[tensor.dtype], 0, _nbytes(tensor))
            for name, tensor in content.tensors.items()
        }
        for name, number in content.numbers.items():
            refs.setdefault(name, TensorRef(self, name, (), NAMES[number.dtype], 0, number.nbytes))
        super().__init__(label, content.metadata, refs, content.notes)

    def view(self, ref: TensorRef) -> torch.Tensor:
        """The tensor, shape and dtype as stored. The first that is asked for makes torch read the file.

        Raises:
            CorruptFileError: the file was written over since it was opened, or torch refuses it.
        """
        if ref.name in self._numbers:
            return self._numbers[ref.name]
        tensor = self._tensors[ref.name]
        if self._mapped:
            check_unchanged(self.path, self._state, self.label)
        return tensor

    @cached_property
    def _tensors(self) -> Mapping[str, torch.Tensor]:
        check_unchanged(self.path, self._state, self.label)
        try:
            with self.path.open("rb") as handle:
                given = str(self.path) if self._mapped else handle
                made = torch.load(given, map_location="cpu", weights_only=True, mmap=self._mapped)
            found = sort_content(made).tensors
        except Exception as error:  # of any kind: the outline was good, so it is the file that torch finds fault with
            reason = one_line(f"{type(error).__name__}: {error}", 200)
            raise CorruptFileError(self.label, f"torch does not read this pickle ({reason})", _HINT) from None
        tensors: dict[str, torch.Tensor] = {name: found[name].detach() for name in self if name in found}
        for name, ref in self.items():
            tensor = tensors.get(name, self._numbers.get(name))
            if tensor is None or (tuple(tensor.shape), NAMES.get(tensor.dtype)) != (ref.shape, ref.dtype):
                raise CorruptFileError(self.label, f"{name}: torch finds another tensor than the file names", _HINT)
        return tensors


def _in_zip(data: Bytes, label: str) -> Any:
    """Since torch 1.6: a zip with ``<name>/data.pkl``, and each storage as ``<name>/data/<key>``."""
    members = zip_members(data, label)
    top = next(iter(members), "").partition("/")[0]
    if any(not name.startswith(f"{top}/") for name in members) or f"{top}/data.pkl" not in members:
        raise PickleFault("a zip, but not one of torch.save")
    if f"{top}/constants.pkl" in members:
        raise PickleFault("a TorchScript program, which is code")
    order = members.get(f"{top}/byteorder")
    if order is not None and data[order.begin : order.end] != b"little":
        raise PickleFault("its numbers are in the order of another kind of processor (big endian)")
    place = members[f"{top}/data.pkl"]
    machine = Machine(data, place.begin, place.end)
    root = machine.run()
    for key, storage in machine.storages.items():
        member = members.get(f"{top}/data/{key}")
        if member is None or member.end - member.begin != storage.nbytes:
            holds = "nothing" if member is None else f"{member.end - member.begin} bytes"
            raise PickleFault(f"its storage {key!r} has {storage.nbytes} bytes, of which the file holds {holds}")
    return root


def _in_a_row(data: Bytes) -> Any:
    """Before torch 1.6: pickles of a magic number, a version, the machine, the tensors and the names of the storages,
    and then for each storage the count of its numbers and the numbers themselves."""
    magic = Machine(data)
    if magic.run() != _MAGIC:
        raise PickleFault("a pickle, but not one of torch.save")
    version = Machine(data, magic.at)
    version.run()
    system = Machine(data, version.at)
    about = system.run()
    if not isinstance(about, dict) or about.get("little_endian") is not True:  # pyright: ignore[reportUnknownMemberType]
        raise PickleFault("its numbers are in the order of another kind of processor (big endian)")
    machine = Machine(data, system.at)
    root = machine.run()
    names = Machine(data, machine.at)
    keys: object = names.run()
    if not isinstance(keys, Sequence) or not all(isinstance(key, str) for key in keys):
        raise PickleFault("it has no list of storages")
    position = names.at
    if set(keys) != set(machine.storages) or len(keys) != len(machine.storages):
        raise PickleFault("its list of storages is not that of its tensors")
    for key in keys:
        storage: Storage = machine.storages[key]
        count = int.from_bytes(data[position : position + 8], "little")
        position += 8 + storage.nbytes
        if count != storage.numbers or position > len(data):
            raise PickleFault(f"its storage {key!r} has {storage.nbytes} bytes, which the file does not hold")
    return root


def _check(name: str, tensor: TensorOutline) -> None:
    """A tensor lies inside its storage and is no larger: one number shown a million times would be one in memory."""
    if len(name) > MAX_NAME:
        raise PickleFault(f"a tensor's name has {len(name)} characters: {name[:60]!r}...")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise PickleFault(f"the name {name!r} is no valid text") from None
    if len(tensor.shape) != len(tensor.stride) or len(tensor.shape) > 64:
        raise PickleFault(f"{name} has {len(tensor.shape)} dimensions and {len(tensor.stride)} strides")
    last = tensor.start + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
    held = tensor.storage.nbytes
    if prod(tensor.shape) and max((last + 1) * tensor.dtype.itemsize, _nbytes(tensor)) > held:
        raise PickleFault(f"{name} has the shape {str(list(tensor.shape))[:80]}, but its storage only {held} bytes")
    if prod(max(size, 1) for size in tensor.shape) >= 1 << 63:
        raise PickleFault(f"no tensor can have the shape {str(list(tensor.shape))[:80]}")


def _nbytes(tensor: TensorOutline) -> int:
    return prod(tensor.shape) * tensor.dtype.itemsize
