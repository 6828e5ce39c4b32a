"""What a format is: one naming scheme of LoRA files.

A format splits a key into a module's name and the role of the tensor, and knows which names an
architecture's modules have. The rest (grouping, shapes, types, the report) is ``mapping``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..architectures import Architecture, Location
from ..io import TensorSource
from ..types import ModuleKey, Slice
from .writing import Writing


class NamedRole(NamedTuple):
    """A key, split: the module's name in this format, and what the tensor does (``adapters.base``)."""

    name: str
    role: str


class Ignored(NamedTuple):
    """A key that is left out on purpose, with the reason for the user."""

    reason: str


class Embedded(NamedTuple):
    """A key that holds an embedding: the token that names it in a prompt, and the encoder that it is for
    (``Component.encoder``)."""

    token: str
    encoder: str


Found = NamedRole | Ignored | Embedded | None


class Located(NamedTuple):
    """The module that a name means, and the slice where it is part of one.

    Args:
        module, slice: where the rows of the file's matrix go.
        more: where its following rows go, for a name that stands for several modules or swaps rows.
    """

    module: ModuleKey
    slice: Slice | None = None
    more: tuple[Located, ...] = ()

    @property
    def parts(self) -> tuple[Located, ...]:
        """All places, in the order of the rows."""
        return (self._replace(more=()), *self.more) if self.more else (self,)

    @classmethod
    def of(cls, component: str, location: Location) -> Located:
        """A location of the architecture's data."""
        more = tuple(cls.of(component, part) for part in location.more)
        return cls(ModuleKey(component, location.path), location.slice, more)


Names = Mapping[str, Located]
Reading = Callable[[Architecture], Names]
# (located, name in the file, rank or None where the shapes do not say it) -> alpha / rank, None where nothing is said
Scale = Callable[[Located, str, "int | None"], "float | None"]


def no_scale(located: Located, name: str, rank: int | None) -> float | None:
    """The rule of formats that state no alpha outside the tensors."""
    return None


@dataclass(frozen=True)
class Format:
    """A row of ``FORMATS``.

    Args:
        name: id in reports, ``"kohya"``.
        title: name for people.
        split: key -> name and role, an ``Embedded``, an ``Ignored``, or None where the key is not of this format.
        names: architecture -> every module name of this format; pure, so ``mapping`` caches it.
        scale: file -> rule for the scale of modules that have no alpha tensor.
        readings: further tables of names, where versions of the program number their modules differently; the one
            that fits is used.
        embeddings: file -> keys that are embeddings, where only the metadata says so.
        settings: file -> the configuration that adapter types may need (``Group.settings``); None where it has none.
        writing: how files are written; None for formats that are only read.
    """

    name: str
    title: str
    split: Callable[[str], Found]
    names: Reading
    scale: Callable[[TensorSource], Scale] = lambda file: no_scale
    readings: tuple[Reading, ...] = ()
    embeddings: Callable[[TensorSource], Mapping[str, Embedded]] = lambda file: {}
    settings: Callable[[TensorSource], Mapping[str, object] | None] = lambda file: None
    writing: Writing | None = None

    def recognise(self, keys: Mapping[str, object]) -> int:
        """Evidence: how many keys are of this format. An empty file has none."""
        return sum(isinstance(self.split(key), NamedRole) for key in keys)
