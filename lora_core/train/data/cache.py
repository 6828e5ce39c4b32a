"""Tensors kept by what they follow from, in memory and in a folder.

An entry's name is the digest of its facts (bytes of the picture, VAE, view; caption, text encoders), never a name of a
file, so what is found is never stale. A file is written beside its place and renamed: several writers may make the
same entry, and one that is killed leaves nothing that a reader takes. A file holds its facts and a digest of its
numbers; one that does not agree with them is reported and made again.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock

import torch
from safetensors.torch import save
from torch import Tensor

from ...errors import LoomError
from ...io import TensorFile
from ...io.atomic import atomic_file

Facts = Mapping[str, str]
Tensors = dict[str, Tensor]


class Cache:
    """Entries of one kind.

    Args:
        folder: where their files lie; None keeps them in memory only.
        memory: bytes of the entries that are kept in memory, the most recently used.
        warn: told of each file that is damaged, in one line.
    """

    def __init__(self, folder: Path | None, memory: int, warn: Callable[[str], None]) -> None:
        self.folder, self.memory, self.warn = folder, memory, warn
        self._kept: OrderedDict[str, Tensors] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()  # threads read ahead

    def get(self, facts: Facts) -> Tensors | None:
        """The tensors, not to be written to; None where there are none."""
        key = key_of(facts)
        with self._lock:
            if (tensors := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return tensors
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            tensors = _read(path, facts)
        except (LoomError, OSError, ValueError) as error:
            self.warn(f"{path.name}: a damaged entry of the cache is made again ({error})")
            return None
        self._keep(key, tensors)
        return tensors

    def has(self, facts: Facts) -> bool:
        """Whether there is an entry, damaged or not: it is looked at when it is read."""
        key = key_of(facts)
        path = self._path(key)
        return key in self._kept or (path is not None and path.is_file())

    def put(self, facts: Facts, tensors: Tensors) -> None:
        key = key_of(facts)
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        path = self._path(key)
        if path is not None:
            try:
                _write(path, facts, tensors)
            except OSError as error:  # a full disk, a folder that may not be written: the run needs no cache to go on
                self.warn(f"the cache in {str(self.folder)!r} cannot be written ({error}): it is kept in memory")
                self.folder = None
        self._keep(key, tensors)

    def _keep(self, key: str, tensors: Tensors) -> None:
        with self._lock:
            self._bytes += _nbytes(tensors) - _nbytes(self._kept.pop(key, {}))
            self._kept[key] = tensors
            while self._bytes > self.memory and len(self._kept) > 1:
                self._bytes -= _nbytes(self._kept.popitem(last=False)[1])

    def _path(self, key: str) -> Path | None:
        # Two letters a folder: tens of thousands of files in one are slow on some disks.
        return self.folder and self.folder / key[:2] / f"{key}.safetensors"


def key_of(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()


def _write(path: Path, facts: Facts, tensors: Tensors) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = save(tensors, {"facts": json.dumps(dict(facts), sort_keys=True), "digest": _digest(tensors)})
    with atomic_file(path, size=len(data), overwrite=True, durable=False) as handle:
        handle.write(data)


def _read(path: Path, facts: Facts) -> Tensors:
    with TensorFile(path) as file:
        tensors = {name: _own(ref.load()) for name, ref in file.items()}
        metadata = dict(file.metadata)
    if json.loads(metadata.get("facts", "{}")) != dict(facts):
        raise ValueError("it is of something else")
    if metadata.get("digest") != _digest(tensors):
        raise ValueError("its numbers are not those that were written")
    return tensors


def _digest(tensors: Tensors) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _own(tensor: Tensor) -> Tensor:
    """A copy that does not share the file's map. One core makes it: torch's threads wait for each other, and on a busy
    machine that takes a hundred times as long."""
    if not tensor.numel():
        return tensor.clone()
    return torch.frombuffer(bytearray(_bytes(tensor)), dtype=tensor.dtype).view(tensor.shape)


def _bytes(tensor: Tensor) -> memoryview:
    if not tensor.numel():
        return memoryview(b"")
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _nbytes(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
