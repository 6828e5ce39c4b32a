"""Look-up in the explicit tables (``FORMATS``, ``ADAPTER_TYPES``, ``ARCHITECTURES``, ...)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from .errors import UnknownNameError


class Named(Protocol):
    """Anything with a name: a row of a table."""

    @property
    def name(self) -> str: ...


Row = TypeVar("Row", bound=Named)

_REMEMBERED = 32


class Registry(Generic[Row]):
    """An ordered, fixed table of named rows.

    Rows that were found at run time can be remembered beside it: they are found by name, and are no part of the table.

    >>> FORMATS.get("kohya").title            # doctest: +SKIP
    """

    def __init__(self, kind: str, rows: Sequence[Row]) -> None:
        names = [row.name for row in rows]
        if len(set(names)) != len(names):
            raise ValueError(f"two rows of the {kind} table have one name: {names}")
        self.kind = kind
        self._rows = {row.name: row for row in rows}
        self._remembered: dict[str, Row] = {}

    def remember(self, row: Row) -> Row:
        """Keep a row that is not in the table, in the place of the oldest where there are many."""
        self._remembered[row.name] = row
        while len(self._remembered) > _REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        return row

    def get(self, name: str) -> Row:
        """The row of that name; ``UnknownNameError`` with the nearest name otherwise."""
        try:
            return self._rows[name] if name in self._rows else self._remembered[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self.names) from None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._remembered
