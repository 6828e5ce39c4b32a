"""Rows out of whatever a user pastes: what is good of it, and what is wrong with the rest.

Understood are our own rows, those of rgthree's loader and of Lora-Manager, alone, in a list, or anywhere inside a node,
a workflow or an API graph that was copied; and ``<lora:name:0.8>`` tags. A tag's numbers are the model's and CLIP's
strength, as Lora-Manager copies them; one that only another dialect can read (``lbw=...``) is read by that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from .errors import ConfigError, LoomError
from .prompt import DIALECTS, parse_prompt
from .rows import Row, read_row

# More than any list that is meant, and few enough to be shown.
MAX_ROWS = 1_000
# A whole workflow in its subgraphs is not as deep.
MAX_DEPTH = 20

_TAG = re.compile(r"<(?:lora|lyco):[^<>]*>", re.IGNORECASE)
_OPEN = re.compile(r"<(?:lora|lyco):[^<>]*(?=<|$)", re.IGNORECASE)
# In this order; Lora-Manager's two numbers are the other way round in the second.
_READERS = ("lora-manager", *(name for name in DIALECTS if name != "lora-manager"))
# What only Lora-Manager's rows have beside a name, which many other things have too.
_LORA_MANAGER = ("strength", "clipStrength", "active")


@dataclass(frozen=True, slots=True)
class Pasted:
    """Rows with a name or a hash, in their order, and what is wrong or left out, one line each."""

    rows: tuple[Row, ...]
    faults: tuple[str, ...] = ()


def read_pasted(value: object) -> Pasted:
    """Rows of a text or of what JSON gives; names are as they were written.

    A row that is not right is left out, and is one or more faults. Never raises.

    >>> read_pasted("<lora:ink:0.8:0.5>").rows
    (Row(on=True, lora='ink', model=0.8, clip=0.5, blocks='', hash=''),)
    """
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith(("[", "{")):
            return _tags(text)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return _tags(text) if _TAG.search(text) else Pasted((), (f"not JSON ({error})",))
    rows: list[Row] = []
    faults: list[str] = []
    for number, found in enumerate(_found(value, 0, listed=True), 1):
        if number > MAX_ROWS:
            faults.append(f"more than {MAX_ROWS} rows: those after are left out")
            break
        own: list[str] = []
        row = read_row(found, f"row {number}", own)
        faults += own
        if not own and (row.lora or row.hash):
            rows.append(row)
    if not rows and not faults:
        faults.append("no LoRA in it: expected rows, a node with rows, or <lora:name:strength> tags")
    return Pasted(tuple(rows), tuple(faults))


def _found(value: object, depth: int, listed: bool = False) -> Iterator[object]:
    """What is or should be a row, in the order of the text. In a list of rows everything should be."""
    if isinstance(value, list | tuple):
        items = cast("Sequence[object]", value)
        rows = listed and (depth == 0 or any(map(_is_row, items)))
        for item in items:
            if _is_row(item) or (rows and not _holds(item)):
                yield item
            elif depth < MAX_DEPTH:
                yield from _found(item, depth + 1)
    elif isinstance(value, dict):
        table = cast("Mapping[str, object]", value)
        if _is_row(table):
            yield table
        elif depth < MAX_DEPTH:
            for name, inside in table.items():
                yield from _found(inside, depth + 1, listed=name in ("__value__", "rows", "loras"))


def _is_row(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    table = cast("Mapping[str, object]", value)
    if isinstance(table.get("lora"), str) or ("model" in table and isinstance(table.get("hash"), str)):
        return True
    return isinstance(table.get("name"), str) and any(name in table for name in _LORA_MANAGER)


def _holds(value: object) -> bool:
    """Whether it has others in it, as a list, a node or a graph has."""
    if not isinstance(value, dict):
        return isinstance(value, list)
    return any(isinstance(inside, dict | list) for inside in cast("Mapping[str, object]", value).values())


def _tags(text: str) -> Pasted:
    """The tags of a text, each by the first dialect that can read it."""
    rows: list[Row] = []
    faults: list[str] = []
    tags = _TAG.findall(text)
    for tag in tags[:MAX_ROWS]:
        row, notes = _tag(tag)
        rows += [row] if row else []
        faults += notes
    if len(tags) > MAX_ROWS:
        faults.append(f"more than {MAX_ROWS} tags: those after are left out")
    faults += [f"{tag[:80]} has no > at its end" for tag in _OPEN.findall(_TAG.sub(" ", text))]
    if not rows and not faults:
        faults.append("no LoRA in it: expected a list of rows, or <lora:name:strength> tags")
    return Pasted(tuple(rows), tuple(faults))


def _tag(tag: str) -> tuple[Row | None, Sequence[str]]:
    """The row of a tag and remarks on it, or the first dialect's faults."""
    faults: Sequence[str] = ()
    for dialect in _READERS:
        try:
            prompt = parse_prompt(tag, dialect)
        except ConfigError as error:
            faults = faults or error.faults
        except LoomError as error:
            faults = faults or (error.message,)
        else:
            (lora,) = prompt.loras
            return Row(True, lora.name, lora.model, lora.clip, lora.blocks), prompt.notes
    return None, faults
