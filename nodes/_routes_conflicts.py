"""The route of conflicts: which rows do the same twice, or against each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

from ..lora_core.architectures import ARCHITECTURES
from ..lora_core.blocks import parse_blocks
from ..lora_core.conflicts import find_conflicts
from ..lora_core.errors import ConfigError, LoomError
from ..lora_core.io.ahead import one_core_each
from ..lora_core.mapping import load_adapter
from ..lora_core.rows import Row, parse_rows
from ..lora_core.stack import StackEntry, Strengths
from . import _files
from ._route import Asked, Json, Route
from ._routes_rows import row_name

# Rows that are compared with each other, the first ones that are on: 300 pairs.
MAX_ROWS = 25


def _conflicts(asked: Asked) -> Json:
    """``POST /loom/conflicts``."""
    rows = parse_rows(asked.body.get("rows"))
    entries: list[tuple[int, StackEntry]] = []
    for place, row in enumerate(rows):
        if row.active and len(entries) < MAX_ROWS and (entry := _entry(row)):
            entries.append((place, entry))
    found = _one_core().submit(find_conflicts, [entry for _, entry in entries]).result()
    return {
        "pairs": [
            {
                "a": entries[pair.a][0],
                "b": entries[pair.b][0],
                "cosine": pair.cosine,
                "shared": pair.shared,
                "text": pair.text,
            }
            for pair in found
        ]
    }


def _entry(row: Row) -> StackEntry | None:
    """None for a row that cannot be used: what is wrong with it is said where it is used."""
    try:
        adapter = load_adapter(_files.lora_path(row_name(row)))
    except (LoomError, OSError):
        return None
    try:
        blocks = parse_blocks(row.blocks, ARCHITECTURES.get(adapter.architecture))
    except ConfigError:
        blocks = {}
    return StackEntry(adapter, Strengths(row.model, row.clip, blocks=blocks))


@cache
def _one_core() -> ThreadPoolExecutor:
    """A thread that computes on one core: sampling may be going on meanwhile."""
    pool = ThreadPoolExecutor(1, "loom-conflicts")
    one_core_each(pool, 1)
    return pool


ROUTES = (Route("POST", "/loom/conflicts", _conflicts, "slow"),)
