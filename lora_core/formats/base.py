"""What a format is: one naming scheme of LoRA files.

A format splits a key into a module's name and the role of the tensor, and knows which names an
architecture's modules have. The rest (grouping, shapes, types, the report) is ``mapping``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..adapters import ADAPTER_TYPES
from ..architectures import Architecture
from ..io import TensorSource
from ..types import ModuleKey, Slice


class NamedRole(NamedTuple):
    """A key, split: the module's name in this format, and what the tensor does (``adapters.base``)."""

    name: str
    role: str


class Ignored(NamedTuple):
    """A key that is left out on purpose, with the reason for the user."""

    reason: str


class Located(NamedTuple):
    """The module that a name means, and the slice where it is part of one."""

    module: ModuleKey
    slice: Slice | None = None


Names = Mapping[str, Located]
Alpha = Callable[[Located, str, int], "float | None"]


def no_alpha(located: Located, name: str, rank: int) -> float | None:
    """The rule of formats that state no alpha outside the tensors."""
    return None


# LyCORIS's suffixes (dora_scale, diff, w_norm, ...) are our roles, so a new adapter type needs no edit here.
ROLES = frozenset({"alpha"}).union(*(row.required | row.optional for row in ADAPTER_TYPES))


def split_suffix(key: str, renamed: Mapping[str, str]) -> NamedRole | None:
    """Split at the last one or two dots: by a format's own suffixes (``renamed``), then by role names."""
    for dots in (2, 1):
        parts = key.rsplit(".", dots)
        suffix = ".".join(parts[1:])
        if len(parts) == dots + 1 and (role := renamed.get(suffix) or (suffix if suffix in ROLES else None)):
            return NamedRole(parts[0], role)
    return None


@dataclass(frozen=True)
class Format:
    """A row of ``FORMATS``.

    Args:
        name: id in reports, ``"kohya"``.
        title: name for people.
        split: key -> name and role, an ``Ignored``, or None where the key is not of this format.
        names: architecture -> every module name of this format; pure, so ``mapping`` caches it.
        alpha: file -> rule for the alpha of modules that have no alpha tensor, (located, name, rank) -> alpha.
    """

    name: str
    title: str
    split: Callable[[str], NamedRole | Ignored | None]
    names: Callable[[Architecture], Names]
    alpha: Callable[[TensorSource], Alpha] = lambda file: no_alpha

    def recognise(self, keys: Mapping[str, object]) -> int:
        """Evidence: how many keys are of this format. An empty file has none."""
        return sum(isinstance(self.split(key), NamedRole) for key in keys)
