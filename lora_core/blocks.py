"""Block weights: text -> factor per block of the model.

Accepted, besides an empty text (no block weights):

- names from the architecture's data: ``in04=0.5, mid=0, out1-3=1``; ``in=0.5`` is every block of that kind;
- vectors: one number per block of the model in its order, ``base`` first (26 for SD 1.5, 20 for SDXL), or one of
  ``VECTORS``, the shorter and longer ones that other tools write;
- Inspire's ``%default=0.5, base=1, in1-4=0, out3=1``, which counts from one as Inspire does: see ``_percent``;
- a preset's name, or its whole line ``NAME:1,0.5,...``.

A factor multiplies the strength; a block that is not named keeps its strength. Cells go to the blocks of the
*model*, so that the same text means the same for every LoRA.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .architectures import Architecture
from .architectures.spec import BASE_BLOCK
from .errors import ConfigError, UnknownNameError
from .numeric import finite

WHERE = "block weights"


def _numbered(kind: str, numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{kind}{number:02d}" for number in numbers)


@dataclass(frozen=True, slots=True)
class Vector:
    """A vector layout of another tool.

    Args:
        source: who writes it.
        cells: block of each number, in the order of the vector; a block may stand several times.
        blocks: the blocks of the models it is for, in their order.
    """

    source: str
    cells: tuple[str, ...]
    blocks: tuple[str, ...]


# The blocks of two families of UNets: SD 1 and 2, and SDXL.
_SD = (BASE_BLOCK, *_numbered("in", range(12)), "mid", *_numbered("out", range(12)))
_SDXL = (BASE_BLOCK, *_numbered("in", range(9)), "mid", *_numbered("out", range(9)))

# Vectors that are not simply one number per block. sd-webui-lora-block-weight leaves out the blocks that have no
# attention; Inspire's presets for LyCORIS leave out the first block and give the three modules of the middle a
# number each. A layout more is a row more.
VECTORS: tuple[Vector, ...] = (
    Vector(
        "LoRA Block Weight, SD",
        (BASE_BLOCK, *_numbered("in", (1, 2, 4, 5, 7, 8)), "mid", *_numbered("out", range(3, 12))),
        _SD,
    ),
    Vector(
        "LoRA Block Weight, SDXL",
        (BASE_BLOCK, *_numbered("in", (4, 5, 7, 8)), "mid", *_numbered("out", range(6))),
        _SDXL,
    ),
    Vector("Inspire, SD", (BASE_BLOCK, *_SD[2:13], "mid", "mid", "mid", *_SD[14:]), _SD),
    Vector("Inspire, SDXL", (BASE_BLOCK, *_SDXL[2:10], "mid", "mid", "mid", *_SDXL[11:]), _SDXL),
)

# Cells that are not numbers: random numbers and the axes of plots in the tools that these texts come from.
_LETTERS = {
    "R": "a random number",
    "U": "a random number",
    "X": "a plot's value",
    "A": "the value A of a plot",
    "B": "the value B of a plot",
}
_ITEM = re.compile(r"([a-z_]+?)(?:(\d+)(?:\s*-\s*(\d+))?)?\s*=\s*(\S+)", re.IGNORECASE)


def parse_blocks(text: str, architecture: Architecture, presets: Mapping[str, str] | None = None) -> dict[str, float]:
    """Factors of the blocks that a text names.

    Args:
        text: see the module's text.
        architecture: of the model, whose blocks are meant.
        presets: name -> text, from ``parse_presets``.

    Returns:
        Block name -> factor, in the order of the model.

    Raises:
        ConfigError: every fault of the text.

    >>> parse_blocks("in04=0.5, mid=0", SDXL)                           # doctest: +SKIP
    {'in04': 0.5, 'mid': 0.0}
    """
    text = text.strip()
    if not text.startswith("%"):
        text = _preset(text, presets or {}).strip()
    if not text:
        return {}
    if text.startswith("%"):
        return _percent(text[1:], architecture)
    if "=" in text:
        return _named(_cells(text), architecture)
    return _vector(_cells(text), architecture, presets or {})


def vector_layouts(architecture: Architecture) -> tuple[Vector, ...]:
    """The vectors that a family's models take: one number per block first; no two of the same length."""
    own = Vector("one number per block", architecture.blocks, architecture.blocks)
    return (own, *(row for row in VECTORS if row.blocks == architecture.blocks))


def parse_presets(text: str) -> dict[str, str]:
    """Presets, ``NAME:v,v,...`` one a line.

    Empty lines and lines that begin with ``#`` (comments) or ``@`` (plots of Inspire's) are left out.
    """
    presets: dict[str, str] = {}
    faults: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line[0] in "#@":
            continue
        name, colon, cells = line.partition(":")
        if not colon or not name.strip() or not cells.strip():
            faults.append(f"line {number}: {line[:60]!r} is not NAME:v,v,...")
        presets[name.strip()] = cells.strip()
    if faults:
        raise ConfigError("block weight presets", faults)
    return presets


def _preset(text: str, presets: Mapping[str, str]) -> str:
    """The text of the preset that is meant by its name or by its whole line; where none is, the text itself."""
    if text in presets:
        return presets[text]
    name, colon, cells = text.partition(":")
    return cells if colon and name.strip() and "=" not in name and "," not in name else text


def _cells(text: str) -> list[str]:
    # A comma at the end is a habit, an empty cell elsewhere a mistake.
    return [cell.strip() for cell in re.sub(r",\s*$", "", text).replace("\n", " ").split(",")]


def _vector(cells: Sequence[str], architecture: Architecture, presets: Mapping[str, str]) -> dict[str, float]:
    """A vector by its length: one number per block, or a row of ``VECTORS``."""
    if len(cells) == 1 and finite(cells[0]) is None and cells[0].upper() not in _LETTERS:
        known = ", ".join(presets) or "none are given"
        fault = f"{cells[0]!r} is neither numbers nor names=numbers nor a preset (presets: {known})"
        raise ConfigError(WHERE, [fault])
    layouts = vector_layouts(architecture)
    faults = [fault for index, cell in enumerate(cells, 1) if (fault := _not_a_number(f"number {index}", cell))]
    layout = next((row for row in layouts if len(row.cells) == len(cells)), None)
    if layout is None:
        lengths = ", ".join(f"{len(row.cells)} ({row.source})" for row in layouts)
        faults.insert(0, f"{len(cells)} numbers, expected for {architecture.title}: {lengths}")
    if faults or layout is None:
        raise ConfigError(WHERE, faults)
    factors: dict[str, float] = {}
    for block, cell in zip(layout.cells, cells, strict=True):
        factor = float(cell)
        if factors.setdefault(block, factor) != factor:
            fault = f"{layout.cells.count(block)} different numbers for {block}, which is one block here: give them one"
            raise ConfigError(WHERE, [fault])
    return {block: factors[block] for block in architecture.blocks if block in factors}


def _named(items: Sequence[str], architecture: Architecture) -> dict[str, float]:
    """``in04=0.5, mid=0, out1-3=1``; what comes later wins, so ``in=0, in04=1`` is one block on."""
    factors: dict[str, float] = {}
    faults: list[str] = []
    for item in items:
        match = _ITEM.fullmatch(item)
        if not match:
            faults.append(f"{item[:60]!r} is not block=number")
        elif fault := _not_a_number(item.split("=")[0].strip(), match[4]):
            faults.append(fault)
        else:
            try:
                factors |= dict.fromkeys(_blocks(match, architecture), float(match[4]))
            except UnknownNameError as error:
                faults.append(f"{item!r}: {error}")
    if faults:
        raise ConfigError(WHERE, faults)
    return {block: factors[block] for block in architecture.blocks if block in factors}


def _percent(text: str, architecture: Architecture) -> dict[str, float]:
    """Inspire's form. ``default`` is for every block that has no number of its own.

    Inspire counts from one through the blocks that a LoRA has: ``in1`` is in01 and ``out1`` is out00 of a LoRA
    with all of them (the first block, ``in00``, is in none). The same numbers are used for every LoRA here.
    """
    items = [item for item in _cells(text) if item]
    default: list[str] = []
    named: list[str] = []
    for item in items:
        kind, _, value = item.partition("=")
        if kind.strip().lower() == "default":
            default = [f"{block}={value}" for block in architecture.blocks]
        else:
            # The middle's three modules are one block here.
            named.append(re.sub(r"^mid1\s*-\s*3", "mid", _from_one(item)))
    return _named(default + named, architecture)


def _from_one(item: str) -> str:
    """``out3-4=1`` -> ``out2-3=1``: from Inspire's count to the blocks' names."""
    match = _ITEM.fullmatch(item)
    if not match or match[1].lower() in ("in", "mid") or not match[2]:
        return item
    first, last = int(match[2]), int(match[3] or match[2])
    if first < 1:
        raise ConfigError(WHERE, [f"{item!r}: after % blocks are counted from 1"])
    return f"{match[1]}{first - 1}-{last - 1}={match[4]}"


def _blocks(match: re.Match[str], architecture: Architecture) -> list[str]:
    """The blocks that ``in04``, ``out1-3`` or ``in`` name."""
    kind = match[1].lower()
    if match[2] is None:
        found = [block for block in architecture.blocks if block == kind or re.fullmatch(rf"{kind}\d+", block)]
        if not found:
            raise UnknownNameError("block", kind, architecture.blocks)
        return found
    first, last = int(match[2]), int(match[3] or match[2])
    if last < first or last > 999:
        raise UnknownNameError("block", f"{kind}{match[2]}-{match[3] or ''}", architecture.blocks)
    names = _numbered(kind, range(first, last + 1))
    for name in names:
        if name not in architecture.blocks:
            raise UnknownNameError("block", name, architecture.blocks)
    return list(names)


def _not_a_number(what: str, cell: str) -> str | None:
    """What is wrong with a cell, or None."""
    if finite(cell) is not None:
        return None
    letter = _LETTERS.get(cell.upper())
    if letter:
        return f"{what} is {cell!r} ({letter} in other tools), which is not supported: write a number"
    if " " in cell.strip() and all(finite(part) is not None for part in cell.split()):
        return f"{what} is {cell!r}: a block takes one number, separated by commas"
    return f"{what} is {cell[:40]!r}, expected a number"
