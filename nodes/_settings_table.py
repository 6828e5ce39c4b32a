"""What the page shows of the engine's settings, from ``_settings_table.json``.

Importing the engine's settings costs as much as the whole pack is allowed to cost the host when it starts, so they
stand in a file. ``engine_table`` makes its content; a test compares the two, and writes the file with LOOM_WRITE=1.
The order of the file is kept and what is new comes last: a saved graph has the values of a node by their places.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import floor, log10
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
# Beyond it JavaScript has no whole numbers, so the page would change them.
MOST = 2**53 - 1
_STEPS = {"optimizer.eps": 1e-10}


@dataclass(frozen=True, slots=True)
class Row:
    """One setting.

    Args:
        name, kind, description, choices: as the engine's ``Setting`` has them.
        unset: of a number, what stands for "as the preset says".
        most: of a number, the largest that the page takes.
        step: of a number, by how much the page's arrows change it; it rounds to this.
    """

    name: str
    kind: str
    description: str
    choices: tuple[str, ...] = ()
    unset: int = -1
    most: int = MOST
    step: float = 1

    @property
    def section(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def is_number(self) -> bool:
        return self.kind in ("whole number", "number")


@dataclass(frozen=True, slots=True)
class Table:
    """The file.

    Args:
        presets: their names.
        picture_endings, mask_ending: of the files in a folder of pictures.
        rows: dotted name -> setting.
    """

    presets: tuple[str, ...]
    picture_endings: tuple[str, ...]
    mask_ending: str
    rows: Mapping[str, Row]


@cache
def table() -> Table:
    """The file's content."""
    read = json.loads(FILE.read_text("utf-8"))
    rows = [Row(**{**row, "choices": tuple(row.get("choices", ()))}) for row in read["settings"]]
    return Table(
        tuple(read["presets"]), tuple(read["picture_endings"]), read["mask_ending"], {row.name: row for row in rows}
    )


def engine_table(order: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the file has to hold.

    Args:
        order: names of settings that come first, in this order.
    """
    from ..lora_core.train.config import PRESETS, settings
    from ..lora_core.train.data.folder import IMAGES, MASK

    known = settings()
    names = [*(name for name in order if name in known), *(name for name in known if name not in order)]
    return {
        "presets": list(PRESETS),
        "picture_endings": list(IMAGES),
        "mask_ending": MASK,
        "settings": [dict(_row(known[name])) for name in names if name != "preset"],
    }


def _row(setting: Any) -> Iterator[tuple[str, Any]]:
    yield "name", setting.name
    yield "kind", setting.kind
    yield "description", setting.description
    if setting.choices:
        yield "choices", list(setting.choices)
    if setting.kind not in ("whole number", "number"):
        return
    if _is_legal(setting.name, -1):
        yield "unset", 0
    if not any(_is_legal(setting.name, value) for value in (2, 1024)):
        yield "most", 1
    if setting.kind == "number":
        share = not _is_legal(setting.name, 2)
        hundredth = 10.0 ** floor(log10(abs(setting.default or 1.0) / 100))
        yield "step", _STEPS.get(setting.name, 1e-4 if share else min(0.01, hundredth))


def _is_legal(name: str, value: int) -> bool:
    """Whether the setting itself, apart from others, can be this number."""
    from pydantic import ValidationError

    from ..lora_core.train.config import TrainConfig

    section: Any = TrainConfig
    *tables, key = name.split(".")
    for part in tables:
        section = section.model_fields[part].annotation
    try:
        section.model_validate_json(json.dumps({"base": "base", key: value} if tables == ["model"] else {key: value}))
    except ValidationError:
        return False
    return True
