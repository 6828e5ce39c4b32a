"""Reading the two committed icon sets: captions, groups, splits and pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

DATA = Path(__file__).parent / "data"
FLAT = "flat"
HIGH_CONTRAST = "high_contrast"
FOOD = "Food & Drink"


@dataclass(frozen=True, slots=True)
class Item:
    """One captioned picture. `split` is "train" or "heldout", the same in both styles.

    `core` marks the plainest things, which are shown more often in training.
    """

    path: Path
    text: str
    group: str
    split: str
    core: bool

    @property
    def is_food(self) -> bool:
        return self.group == FOOD


def read_items(style: str, root: Path = DATA) -> list[Item]:
    """All items of one style folder, in the order of its metadata.jsonl."""
    folder = root / style
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [Item(folder / r["file_name"], r["text"], r["group"], r["split"], r["core"]) for r in rows]


def select(items: Iterable[Item], *, food: bool | None = None, split: str | None = None) -> list[Item]:
    """Items with (or without) food, of one split; None leaves that choice open."""
    return [item for item in items if (food is None or item.is_food == food) and (split is None or item.split == split)]


def load_images(items: Iterable[Item]) -> Tensor:
    """Pictures as one float tensor (n, 3, height, width) in [-1, 1]."""
    arrays = [np.asarray(Image.open(item.path).convert("RGB")) for item in items]
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float()
    return pixels / 127.5 - 1.0
