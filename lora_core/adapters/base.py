"""What an adapter type is: a set of tensor roles, and how they become a ``Delta``.

A role is what a tensor does, whatever a format calls it: ``down``, ``up``, ``mid``, ``alpha``,
``dora_scale``, ``magnitude``, ``diff``, ... Formats translate key suffixes to roles, adapter types build
deltas from roles. ``alpha`` is read before: a ``Group`` carries its value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..errors import ShapeMismatchError
from ..io import TensorRef
from ..types import Shape


class Factors(NamedTuple):
    """A low-rank difference ``scale * up @ down``, 2-D, dtype as stored.

    ``up`` is (out, rank), ``down`` is (rank, in * kernel area): the weight flattened from dimension 1 on.
    """

    up: torch.Tensor
    down: torch.Tensor
    scale: float


class Delta(ABC):
    """One parameter's change, as a file describes it. Immutable; its tensors stay in the file until used.

    Attributes:
        type: name in ``ADAPTER_TYPES``.
        tensors: what it reads from the file; the alpha was read before.
        rank: of the factors, None where the type has none.
        scale: alpha / rank; 1 where the type has no alpha.
    """

    type: str
    tensors: tuple[TensorRef, ...]
    rank: int | None = None
    scale: float = 1.0

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Keys in the file."""
        return tuple(tensor.name for tensor in self.tensors)

    @abstractmethod
    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        """The changed weight as a new tensor; ``weight`` is float32 on the device to compute on, and is
        not written to. Strength 0 returns the weight's values unchanged."""

    def factors(self, device: torch.device | str = "cpu") -> Factors | None:
        """The change as low-rank factors, for deltas that are additive and low-rank; None for others."""
        return None


class Group(NamedTuple):
    """The tensors that a file holds for one module.

    Args:
        file: name of the file, for errors.
        name: what the file calls the module.
        roles: role -> tensor, without ``alpha``.
        shapes: parameter -> shape in the model (of the slice, where the module is one).
        alpha: value, None where the file gives none.
    """

    file: str
    name: str
    roles: Mapping[str, TensorRef]
    shapes: Mapping[str, Shape]
    alpha: float | None

    @property
    def weight(self) -> Shape:
        """Shape of the module's weight."""
        return self.shapes["weight"]

    def misfit(self, role: str, expected: object) -> ShapeMismatchError:
        """The error that says that this role's tensor does not fit the module."""
        ref = self.roles[role]
        hint = "The file was made for another model, or is damaged."
        return ShapeMismatchError(self.file, ref.name, expected, ref.shape, hint)


@dataclass(frozen=True, slots=True)
class AdapterType:
    """A row of ``ADAPTER_TYPES``.

    Args:
        name: id in reports, ``"lora"``.
        title: name for people.
        required: roles that a group must have.
        optional: roles that it may have besides.
        build: group -> {parameter: delta}; raises ``ShapeMismatchError``.
    """

    name: str
    title: str
    required: frozenset[str]
    optional: frozenset[str]
    build: Callable[[Group], Mapping[str, Delta]]

    def takes(self, roles: frozenset[str]) -> frozenset[str]:
        """The roles of a group that this type uses; empty where a required one is missing."""
        return roles & (self.required | self.optional) if self.required <= roles else frozenset()
