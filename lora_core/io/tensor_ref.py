"""A tensor that is not read yet, and the kinds of place it can be in."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch

from ..errors import UnknownNameError
from ..types import Shape
from .dtypes import NAMES


@dataclass(frozen=True, slots=True)
class TensorRef:
    """One tensor of a source, not yet read.

    Args:
        source: what holds it.
        name: its key.
        shape: as stored.
        dtype: name of the safetensors header, such as ``"F16"``.
        begin, end: byte range in the data section of a file.
    """

    source: TensorSource
    name: str
    shape: Shape
    dtype: str
    begin: int = 0
    end: int = 0

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.end - self.begin

    def load(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
        """Read the tensor. It may share memory with its source: never write to it."""
        tensor = self.source.view(self)
        return tensor.to(device=device, dtype=dtype) if dtype is not None else tensor.to(device=device)

    def item(self) -> float:
        """The value of a tensor with one element (an alpha), as a float."""
        return self.source.number(self)

    def __repr__(self) -> str:
        return f"TensorRef({self.name!r}, {list(self.shape)}, {self.dtype})"


class TensorSource(Mapping[str, TensorRef]):
    """A mapping of key to ``TensorRef`` with the metadata of a file.

    Attributes:
        label: name for reports and errors, without folders of the machine.
        metadata: key -> text.
        notes: what else is in it and is left out, for the user.
    """

    def __init__(
        self, label: str, metadata: Mapping[str, str], refs: Mapping[str, TensorRef], notes: tuple[str, ...] = ()
    ) -> None:
        self.label = label
        self.metadata = dict(metadata)
        self.notes = notes
        self._refs: Mapping[str, TensorRef] = refs

    @abstractmethod
    def view(self, ref: TensorRef) -> torch.Tensor:
        """The tensor of one of this source's refs, shape and dtype as stored."""

    def number(self, ref: TensorRef) -> float:
        """The value of a tensor with one element."""
        return float(self.view(ref).item().real)  # a complex alpha is nonsense, but no crash

    def forget(self, ref: TensorRef) -> None:
        """Say that a tensor that was read is not needed for now: a file gives its memory back."""

    def close(self) -> None:
        """Let go of all tensors. A source and its refs hold each other, so without this a file that was only looked
        at stays open until Python collects garbage; a thousand of them are more than a process may have open."""
        self._refs = {}

    def __getitem__(self, key: str) -> TensorRef:
        try:
            return self._refs[key]
        except KeyError:
            raise UnknownNameError("tensor", key, tuple(self._refs), f"in {self.label}") from None

    def __contains__(self, key: object) -> bool:
        return key in self._refs

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r}, {len(self)} tensors)"


class TensorDict(TensorSource):
    """Tensors that are in memory already, such as the host's LORA_MODEL."""

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], label: str = "tensors", metadata: Mapping[str, str] | None = None
    ) -> None:
        self._tensors = dict(tensors)
        refs = {
            name: TensorRef(self, name, tuple(tensor.shape), NAMES[tensor.dtype], 0, tensor.nbytes)
            for name, tensor in self._tensors.items()
        }
        super().__init__(label, metadata or {}, refs)

    def view(self, ref: TensorRef) -> torch.Tensor:
        return self._tensors[ref.name].detach()
