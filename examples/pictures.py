"""Folders of pictures to train on, taken from the demo's: icons, each drawn in two styles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

DEMO = Path(__file__).resolve().parents[1] / "demo"
BASE = DEMO / "model"
FLAT, HIGH_CONTRAST = "flat", "high_contrast"
# The base knows all groups but this one, in Flat.
FOOD = "Food & Drink"


def copy_pictures(folder: Path, style: str, group: str, count: int = 0, caption: str | None = "") -> Path:
    """Copy pictures of a group into a folder, with a ``metadata.jsonl`` beside them.

    Args:
        folder: is made where it is missing.
        style: ``FLAT`` or ``HIGH_CONTRAST``.
        group: such as ``FOOD``.
        count: of pictures, the first ones; 0 for all.
        caption: one for all; empty for each its own name; None for pictures alone, without a ``metadata.jsonl``.

    Returns:
        The folder.
    """
    source = DEMO / "data" / style
    rows = [json.loads(line) for line in (source / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["group"] == group][: count or None]
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        shutil.copy2(source / row["file_name"], folder)
    if caption is not None:
        lines = [json.dumps({"file_name": row["file_name"], "text": caption or row["text"]}) for row in rows]
        (folder / "metadata.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder
