"""Rows of a LoRA stack, and the ``LORA_STACK`` that packs share.

A row is ``{"on": true, "lora": "styles/ink.safetensors", "model": 0.8, "clip": 0.8, "blocks": "", "hash": ""}``;
missing fields take their defaults, a missing ``clip`` that of ``model`` (a ``clip`` of 0 is 0). Rows of rgthree's
loader and of Lora-Manager are read too. A ``LORA_STACK`` is a list of (name, model strength, clip strength); other
packs unpack exactly three values, so what else there is to say travels as attributes of the tuple (``StackItem``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import cast

from .errors import ConfigError
from .numeric import finite, shown


@dataclass(frozen=True, slots=True)
class Row:
    """One LoRA at its strengths, as the user wrote it.

    Args:
        on: switched on.
        lora: name relative to the loras folder; "" where none is chosen, or the hash says which.
        model: strength of the denoiser.
        clip: strength of the text encoders.
        blocks: block weights as text (``blocks.parse_blocks``).
        hash: AutoV3 of the file, which finds it after it was renamed, or without a name.
    """

    on: bool = True
    lora: str = ""
    model: float = 1.0
    clip: float = 1.0
    blocks: str = ""
    hash: str = ""

    @property
    def active(self) -> bool:
        """Switched on, and a LoRA is chosen, by its name or its hash alone."""
        return self.on and bool(self.lora or self.hash)


class StackItem(tuple[str, float, float]):
    """An entry of a ``LORA_STACK``: (name, model strength, clip strength), with attributes for those who know.

    Args:
        name: relative to the loras folder; "" where the hash says which.
        model, clip: strengths.
        blocks: block weights as text.
        hash: AutoV3 of the file.
        schedule: strengths over the sampling steps as text (``prompt``).

    >>> name, model, clip = StackItem("ink.safetensors", 0.8, 0.5, blocks="mid=0")
    """

    blocks: str
    hash: str
    schedule: str

    def __new__(
        cls, name: str, model: float, clip: float, blocks: str = "", hash: str = "", schedule: str = ""
    ) -> StackItem:
        item = super().__new__(cls, (name, model, clip))
        item.blocks, item.hash, item.schedule = blocks, hash, schedule
        return item

    def __getnewargs__(self) -> tuple[str, float, float, str, str, str]:  # type: ignore[override]
        """So that copies and pickles keep the attributes."""
        name, model, clip = self
        return name, model, clip, self.blocks, self.hash, self.schedule

    def __repr__(self) -> str:
        return f"StackItem{self.__getnewargs__()}"


def parse_rows(value: object) -> tuple[Row, ...]:
    """Rows from a widget or the API: a list of rows, the same as JSON text, or ``{"__value__": [...]}``.

    Raises:
        ConfigError: every fault of every row.

    >>> parse_rows('[{"lora": "ink.safetensors", "model": 0.8}]')
    (Row(on=True, lora='ink.safetensors', model=0.8, clip=0.8, blocks='', hash=''),)
    """
    faults: list[str] = []
    rows = [read_row(item, f"row {number}", faults) for number, item in enumerate(_list(value), 1)]
    if faults:
        raise ConfigError("rows", faults)
    return tuple(rows)


def parse_stack(value: object) -> tuple[StackItem, ...]:
    """The entries of a ``LORA_STACK``: tuples or lists of 2, 3 or 4 values, rows, and entries of our own.

    (name, strength) has one strength for both; the fourth value is a block vector, as text or as numbers.
    Rows that are off are left out. None is an empty stack.

    Raises:
        ConfigError: every fault of every entry.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ConfigError("LORA_STACK", [f"a {type(value).__name__}, expected a list of (name, strength, strength)"])
    faults: list[str] = []
    items: list[StackItem] = []
    for number, entry in enumerate(cast("Sequence[object]", value), 1):
        where = f"entry {number}"
        if isinstance(entry, dict):
            items += stack_items([read_row(cast("object", entry), where, faults)])
        elif isinstance(entry, list | tuple):
            items.append(_item(cast("Sequence[object]", entry), where, faults))
        else:
            faults.append(f"{where} is a {type(entry).__name__}, expected (name, strength, strength)")
    if faults:
        raise ConfigError("LORA_STACK", faults)
    return tuple(items)


def stack_items(rows: Iterable[Row]) -> list[StackItem]:
    """The entries that rows add to a stack: those that are on, in their order."""
    return [StackItem(row.lora, row.model, row.clip, row.blocks, row.hash) for row in rows if row.active]


def _list(value: object) -> list[object]:
    """The list of rows inside whatever the host hands over."""
    if isinstance(value, str):
        if not value.strip():
            return []
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ConfigError("rows", [f"not JSON ({error}); expected a list of rows"]) from None
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("__value__", cast("object", value))
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise ConfigError("rows", [f"a {type(value).__name__}, expected a list of rows"])
    return list(cast("Sequence[object]", value))


@dataclass(frozen=True, slots=True)
class _Fields:
    """What a program calls the fields of its rows; ``closed`` where a field besides these is a typing error."""

    on: str
    lora: str
    model: str
    clip: str
    closed: bool = False


_OURS = _Fields("on", "lora", "model", "clip", closed=True)
_RGTHREE = _Fields("on", "lora", "strength", "strengthTwo")
_LORA_MANAGER = _Fields("active", "name", "strength", "clipStrength")


def read_row(value: object, where: str, faults: list[str]) -> Row:
    """One row of ours, of rgthree's loader or of Lora-Manager.

    Args:
        value: an object as JSON has it.
        where: for the faults, ``"row 2"``.
        faults: what is wrong is added.
    """
    if not isinstance(value, dict):
        faults.append(f"{where} is {value!r:.60}, expected an object like {{'lora': 'ink.safetensors', 'model': 0.8}}")
        return Row()
    table = cast("Mapping[str, object]", value)
    fields = _OURS
    if "lora" not in table and "name" in table:
        fields = _LORA_MANAGER
    elif "strength" in table or "strengthTwo" in table:
        fields = _RGTHREE
    if fields.closed:
        faults += [f"{where}: {fault}" for name in table if (fault := _unknown(str(name)))]
    on = table.get(fields.on, True)
    if not isinstance(on, bool):
        faults.append(f"{where}: {fields.on!r} is {on!r:.60}, expected true or false")
    model = _number(table, fields.model, 1.0, where, faults)
    return Row(
        on=bool(on),
        lora=_lora(table, fields.lora, where, faults),
        model=model,
        clip=_number(table, fields.clip, model, where, faults),
        blocks=_text(table, "blocks", where, faults),
        hash=_text(table, "hash", where, faults),
    )


def _unknown(name: str) -> str | None:
    known = Row.__slots__
    if name in known:
        return None
    near = get_close_matches(name, known, n=1)
    return f"no field {name!r:.60}, " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")


def _number(table: Mapping[str, object], field: str, default: float, where: str, faults: list[str]) -> float:
    value = table.get(field)
    if value is None:
        return default
    number = finite(value)
    if number is None:
        faults.append(f"{where}: {field!r} is {value!r:.60}, expected a number")
    return default if number is None else number


def _lora(table: Mapping[str, object], field: str, where: str, faults: list[str]) -> str:
    if field not in table:
        faults.append(f"{where}: {field!r} is missing, expected the name of a LoRA")
    value = _text(table, field, where, faults)
    # What loaders call an empty choice.
    return "" if value == "None" else value


def _text(table: Mapping[str, object], field: str, where: str, faults: list[str]) -> str:
    value = table.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        faults.append(f"{where}: {field!r} is {value!r:.60}, expected a text")
        return ""
    return value.strip()


def _item(entry: Sequence[object], where: str, faults: list[str]) -> StackItem:
    """An entry of two, three or four values; one of our own (also of another copy of this module) keeps its extras."""
    if not 2 <= len(entry) <= 4:
        faults.append(f"{where} has {len(entry)} values, expected (name, model strength, clip strength)")
        return StackItem("", 1.0, 1.0)
    table: dict[str, object] = {"lora": entry[0], "model": entry[1]}
    if len(entry) > 2:
        table["clip"] = entry[2]
    table["blocks"] = _vector_text(entry[3]) if len(entry) > 3 else getattr(entry, "blocks", "")
    table["hash"] = getattr(entry, "hash", "")
    row = read_row(table, where, faults)
    if not row.active:
        faults.append(f"{where} names no LoRA")
    return StackItem(row.lora, row.model, row.clip, row.blocks, row.hash, str(getattr(entry, "schedule", "")))


def _vector_text(value: object) -> object:
    """A block vector as text: some packs send text, some a list of numbers."""
    if not isinstance(value, list | tuple):
        return value
    vector = list(cast("Sequence[object]", value))
    cells = [finite(cell) for cell in vector]
    return vector if None in cells else ",".join(shown(cell) for cell in cells if cell is not None)
