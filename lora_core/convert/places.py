"""Which modules of the target's names the units of a file become: the same, rows of one, or several joined.

Everything is compared as rows of the model's own modules. A unit whose rows are exactly a module of the target is
that module. What remains is cut up and put together again: a fused q, k and v gives three, three give one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..architectures import ARCHITECTURES, Component
from ..errors import ConversionError
from ..formats import Writing
from ..types import ModuleKey
from .units import Part, Unit, rows_of_module


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows of a unit that become rows of a module of the target."""

    unit: Unit
    source: int
    target: int
    length: int


@dataclass(slots=True)
class Assembly:
    """One module of the new file.

    Args:
        writing: how it is spelt.
        component: of the model.
        path: in the target's names.
        parts: what the name means.
        segments: what its rows are made of; rows that nothing makes are not changed.
    """

    writing: Writing
    component: Component
    path: str
    parts: tuple[Part, ...]
    segments: list[Segment] = field(default_factory=list[Segment])

    @property
    def rows(self) -> int:
        return sum(part.length for part in self.parts)

    @property
    def name(self) -> str:
        """What stands in front of the suffixes."""
        return self.writing.key(self.component, self.path)

    @property
    def units(self) -> list[Unit]:
        """Each once, in order."""
        return list({id(segment.unit): segment.unit for segment in self.segments}.values())

    @property
    def same(self) -> bool:
        """Whether it is one unit as it stands."""
        first, *others = self.segments
        return not others and first.length == self.rows == first.unit.rows


def place(file: str, architecture: str, units: Sequence[Unit], writing: Writing, title: str) -> list[Assembly]:
    """The modules of the new file.

    Args:
        file, title: name of the file and of the format, for errors.
        architecture: name in ``ARCHITECTURES``.

    Raises:
        ConversionError: the format has no name for a module.
    """
    made: dict[tuple[str, str], Assembly] = {}
    for component in ARCHITECTURES.get(architecture).components:
        own = [unit for unit in units if unit.component == component.name]
        if own:
            table = _table(architecture, component, writing)
            for path, segments in _component(file, own, table, title).items():
                made[component.name, path] = Assembly(writing, component, path, table[path], segments)
    order = {id(unit): index for index, unit in enumerate(units)}
    return sorted(made.values(), key=lambda one: order[id(one.segments[0].unit)])


def _table(architecture: str, component: Component, writing: Writing) -> dict[str, tuple[Part, ...]]:
    """path -> rows that it means."""
    table: dict[str, tuple[Part, ...]] = {}
    for path, location in writing.modules(ARCHITECTURES.get(architecture), component).items():
        table[path] = tuple(
            Part(part.path, part.slice.start, part.slice.length)
            if part.slice
            else Part(part.path, 0, rows_of_module(architecture, ModuleKey(component.name, part.path)))
            for part in location.parts
        )
    return table


def _component(
    file: str, units: Iterable[Unit], table: Mapping[str, tuple[Part, ...]], title: str
) -> dict[str, list[Segment]]:
    """path -> what its rows are made of; units that are a module of the target as they stand come first."""
    exact: dict[tuple[Part, ...], str] = {}
    touching: dict[str, list[str]] = {}
    for path, parts in table.items():
        exact.setdefault(parts, path)
        for part in parts:
            touching.setdefault(part.path, []).append(path)
    made: dict[str, list[Segment]] = {}
    rest: list[Unit] = []
    for unit in units:
        path = exact.get(unit.parts)
        if path is None:
            rest.append(unit)
        else:
            made.setdefault(path, []).append(Segment(unit, 0, 0, unit.rows))
    for unit in rest:
        missing = unit.rows
        for path in _candidates(unit, touching, table):
            found = list(_segments(unit, table[path]))
            missing -= sum(segment.length for segment in found)
            if found:
                made.setdefault(path, []).extend(found)
        if missing:
            raise ConversionError(file, title, unit.kind, unit.name, "the format has no name for this module")
    return made


def _candidates(unit: Unit, touching: Mapping[str, list[str]], table: Mapping[str, tuple[Part, ...]]) -> Iterable[str]:
    """Names that together stand for the unit's rows, none for rows of another."""
    chosen: dict[str, None] = {}
    taken: list[Part] = []
    for module in dict.fromkeys(part.path for part in unit.parts):
        for path in touching.get(module, ()):
            if path not in chosen and not any(_overlap(part, other) for part in table[path] for other in taken):
                chosen[path] = None
                taken += table[path]
    return chosen


def _overlap(one: Part, other: Part) -> bool:
    return one.path == other.path and one.start < other.start + other.length and other.start < one.start + one.length


def _segments(unit: Unit, parts: tuple[Part, ...]) -> Iterable[Segment]:
    """The rows that a unit and a name have in common."""
    target = 0
    for part in parts:
        source = 0
        for own in unit.parts:
            start = max(part.start, own.start)
            length = min(part.start + part.length, own.start + own.length) - start
            if part.path == own.path and length > 0:
                yield Segment(unit, source + start - own.start, target + start - part.start, length)
            source += own.length
        target += part.length
