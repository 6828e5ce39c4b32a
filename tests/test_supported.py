"""docs/SUPPORTED.md says what the tables hold."""

from __future__ import annotations

import re
from pathlib import Path

from lora_core.architectures import ARCHITECTURES, Architecture
from lora_core.formats import FORMATS


def rows(repository: Path, heading: str) -> dict[str, list[str]]:
    """First cell -> the other cells of the table below a heading."""
    text = (repository / "docs" / "SUPPORTED.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {first: rest for first, *rest in cells[2:]}


def ranges(row: Architecture) -> str:
    """``in00-11, mid, out00-11``"""
    kinds: dict[str, list[str]] = {}
    for block in row.blocks[1:]:
        kinds.setdefault(re.sub(r"\d+$", "", block), []).append(block)
    return ", ".join(f"{names[0]}-{names[-1][-2:]}" if len(names) > 1 else names[0] for names in kinds.values())


def test_every_family_is_listed_with_its_blocks_and_text_encoders(repository: Path):
    expected = {
        row.name: [row.title, row.variant_of, ranges(row), ", ".join(c.encoder for c in row.components if c.encoder)]
        for row in ARCHITECTURES
    }
    assert rows(repository, "Families") == expected


def test_every_format_is_listed(repository: Path):
    assert set(rows(repository, "Formats")) == set(FORMATS.names)
