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

    def shape_after(self, shape: Shape) -> Shape:
        """The shape of a changed weight of this shape: the same, but for changes that give the weight more inputs."""
        return shape

    def rows(self, start: int, length: int) -> Delta | None:
        """The same change on rows (outputs) ``start`` to ``start + length`` alone, as a delta of a weight of so many
        rows: a file has q, k and v in one matrix and the model in three. None where rows do not change apart."""
        return None


class AdditiveDelta(Delta):
    """A change that does not depend on the weight: ``W' = W + strength * difference``."""

    @abstractmethod
    def difference(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        """The difference at strength 1, scale included; of the weight's number of rows and of elements."""

    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        if strength == 0:
            return weight.clone()  # 0 times an infinity of a damaged file would be NaN
        difference = self.difference(weight.device, weight.dtype).reshape(weight.shape)
        return torch.add(weight, difference, alpha=strength)

    def rows(self, start: int, length: int) -> Delta:
        return _Rows(self, start, length)


class LowRankDelta(AdditiveDelta):
    """An additive change that is a product of two factors."""

    @abstractmethod
    def factors(self, device: torch.device | str = "cpu") -> Factors:
        """up (out, rank) and down (rank, in * kernel area)."""

    def difference(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        up, down, scale = self.factors(device)
        return (up.to(dtype) @ down.to(dtype)).mul_(scale)

    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        """As one product, which rounds once."""
        if strength == 0:
            return weight.clone()
        up, down, scale = self.factors(weight.device)
        flat = weight.flatten(1)
        return torch.addmm(flat, up.to(flat.dtype), down.to(flat.dtype), alpha=strength * scale).reshape(weight.shape)


class _Rows(AdditiveDelta):
    """Some rows of an additive change."""

    def __init__(self, whole: AdditiveDelta, start: int, length: int) -> None:
        self.type, self.tensors, self.rank, self.scale = whole.type, whole.tensors, whole.rank, whole.scale
        self.whole, self.start, self.length = whole, start, length

    def difference(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
        return self.whole.difference(device, dtype).narrow(0, self.start, self.length)

    def factors(self, device: torch.device | str = "cpu") -> Factors | None:
        found = self.whole.factors(device)
        return found and found._replace(up=found.up.narrow(0, self.start, self.length))

    def rows(self, start: int, length: int) -> Delta:
        return _Rows(self.whole, self.start + start, length)


class Group(NamedTuple):
    """The tensors that a file holds for one module.

    Args:
        file: name of the file, for errors.
        name: what the file calls the module.
        roles: role -> tensor, without ``alpha``.
        shapes: parameter -> shape in the model (of the slice, where the module is one).
        alpha: value, None where the file gives none.
        scale: alpha / rank where the file states it outside its tensors (PEFT's configuration); it then decides.
        settings: PEFT's configuration, where the file comes with one.
    """

    file: str
    name: str
    roles: Mapping[str, TensorRef]
    shapes: Mapping[str, Shape]
    alpha: float | None
    scale: float | None = None
    settings: Mapping[str, object] | None = None

    @property
    def weight(self) -> Shape:
        """Shape of the module's weight; () where the module has none (a bare parameter)."""
        return self.shapes.get("weight", ())

    @property
    def main(self) -> str:
        """The parameter that files call the weight: the only one of a module without (``scale`` of Flux's norms)."""
        return "weight" if "weight" in self.shapes or len(self.shapes) != 1 else next(iter(self.shapes))

    def scale_of(self, rank: int) -> float:
        """alpha / rank; without an alpha, 1."""
        if self.scale is not None:
            return self.scale
        return 1.0 if self.alpha is None else self.alpha / rank

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
        optional: roles that it may have besides. A role may be a list in the file (``oft_blocks.0``, ``.1``, ...):
            each of its tensors is a role ``oft_blocks.<n>`` of a group, and the type names ``oft_blocks.*``.
        build: group -> {parameter: delta}; raises ``ShapeMismatchError``.
        one_of: sets of roles that stand for each other, such as a whole matrix or its two factors: of each tuple the
            group must have one, and the first that it has is used.
    """

    name: str
    title: str
    required: frozenset[str]
    optional: frozenset[str]
    build: Callable[[Group], Mapping[str, Delta]]
    one_of: tuple[tuple[frozenset[str], ...], ...] = ()

    @property
    def roles(self) -> frozenset[str]:
        """All that it can use."""
        return self.required.union(self.optional, *(roles for choice in self.one_of for roles in choice))

    def takes(self, roles: frozenset[str]) -> frozenset[str]:
        """The roles of a group that this type uses; empty where a required one is missing."""
        kinds = {role: listed(role) for role in roles}
        present = set(kinds.values())
        chosen = [next((way for way in choice if way <= present), None) for choice in self.one_of]
        if not self.required <= present or None in chosen:
            return frozenset()
        used = self.required.union(self.optional, *(way for way in chosen if way))
        return frozenset(role for role, kind in kinds.items() if kind in used)


def listed(role: str) -> str:
    """``oft_blocks.3`` -> ``oft_blocks.*``; a role that is no list as it is."""
    name, _, index = role.rpartition(".")
    return f"{name}.*" if name and index.isdigit() else role
