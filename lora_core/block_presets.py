"""Block weights with a name, for every family: which parts of a model a LoRA acts on.

A preset is a text that ``blocks.parse_blocks`` takes, with names of blocks and never a vector: it means the same on
each family that has blocks of these kinds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .architectures import Architecture
from .architectures.spec import BASE_BLOCK


@dataclass(frozen=True, slots=True)
class Preset:
    """A row of ``PRESETS``.

    Args:
        name: for people.
        keeps: kinds of blocks (``in``), or blocks (``out01``), that stay at 1; the others are at 0.
        without: the same the other way round: these are at 0, the others stay. One of the two.
        families: names of families that it is for; () for all that have blocks of these kinds.
    """

    name: str
    keeps: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    families: tuple[str, ...] = ()


# SDXL's two attentions behind the middle: B-LoRA (2024) found the content of a picture in the first and its style in
# the second.
_SDXL = ("sdxl", "sdxl_inpaint", "sdxl_pix2pix")

PRESETS: tuple[Preset, ...] = (
    Preset("All blocks"),
    Preset("Without text encoders and base", without=(BASE_BLOCK,)),
    Preset("Text encoders and base only", keeps=(BASE_BLOCK,)),
    Preset("In only", keeps=("in",)),
    Preset("Middle only", keeps=("mid",)),
    Preset("Out only", keeps=("out",)),
    Preset("Without middle", without=("mid",)),
    Preset("In and middle only", keeps=("in", "mid")),
    Preset("Middle and out only", keeps=("mid", "out")),
    Preset("Content block only (B-LoRA)", keeps=("out00",), families=_SDXL),
    Preset("Style block only (B-LoRA)", keeps=("out01",), families=_SDXL),
    Preset("Content and style blocks only (B-LoRA)", keeps=("out00", "out01"), families=_SDXL),
    Preset("Down only", keeps=("down",)),
    Preset("Up only", keeps=("up",)),
    Preset("Double blocks only", keeps=("double",)),
    Preset("Single blocks only", keeps=("single",)),
    Preset("Without context and noise refiners", without=("context", "noise")),
    Preset("Without VACE blocks", without=("vace",)),
)

# Families whose blocks are one long row: parts of it by the thirds.
_ROWS = ("block", "joint", "layer", "double", "single")


def presets_for(architecture: Architecture) -> list[tuple[str, str]]:
    """(name, text) of the presets that a family has, ``All blocks`` with an empty text first."""
    kinds = kinds_of(architecture)
    found: list[tuple[str, str]] = []
    for row in PRESETS:
        if row.families and architecture.name not in row.families:
            continue
        if all(name in kinds or name in architecture.blocks for name in (*row.keeps, *row.without)):
            found.append((row.name, _text(row, kinds)))
    return found + [preset for kind in _ROWS if kind in kinds for preset in _thirds(kind, kinds)]


def kinds_of(architecture: Architecture) -> dict[str, int]:
    """Kind -> how many blocks of it, in the order of the model: ``{"base": 1, "in": 12, "mid": 1, "out": 12}``."""
    kinds: dict[str, int] = {}
    for block in architecture.blocks:
        kind = re.sub(r"\d+$", "", block)
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def _text(row: Preset, kinds: dict[str, int]) -> str:
    if row.keeps:
        return ", ".join([*(f"{kind}=0" for kind in kinds if kind not in row.keeps), *(f"{n}=1" for n in row.keeps)])
    return ", ".join(f"{name}=0" for name in row.without)


def _thirds(kind: str, kinds: dict[str, int]) -> list[tuple[str, str]]:
    """The first, the middle and the last third of a long row of blocks alone."""
    count = kinds[kind]
    if count < 9:
        return []
    ends = [round(count * part / 3) for part in range(4)]
    off = ", ".join(f"{name}=0" for name in kinds)
    return [
        (f"{which} third of {kind} only", f"{off}, {kind}{start}-{end - 1}=1")
        for which, start, end in zip(("First", "Middle", "Last"), ends, ends[1:], strict=False)
    ]
