"""Files made of key inventories: names and shapes of real files, seeded random values."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from lora_core.io import TensorDict
from lora_core.io.dtypes import TORCH_DTYPES

Inventory = dict[str, Any]

FOLDER = Path(os.environ.get("LOOM_KEYS") or Path(__file__).resolve().parents[2] / "shared" / "keys") / "lora"

BASES = ("sd15", "sdxl")
# Names of inventories are <base>__<format>__<type>[_tag].
FORMATS = {
    "kohya": "kohya",
    "kohya-ldm": "kohya",
    "kohya-diffusers": "kohya",
    "diffusers-tokohya": "kohya",
    "onetrainer-kohya": "kohya",
    "onetrainer-legacy": "kohya",
    "diffusers-old": "diffusers",
    "diffusers-mid": "diffusers",
    "diffusers-peft": "diffusers",
}
TYPES = (
    "lora",
    "locon",
    "locon-tucker",
    "locon-norm",
    "dora",
    "dora-on-input",
    "dora-on-output",
    "dora-weight",
    "full",
)


def parts(path: Path) -> tuple[str, str, str]:
    base, scheme, kind = path.stem.split("__")
    return base, scheme, kind.split("_")[0]


def in_scope(path: Path) -> bool:
    base, scheme, kind = parts(path)
    return base in BASES and scheme in FORMATS and kind in TYPES


ALL = sorted(FOLDER.glob("*.json"))
SCOPE = [path for path in ALL if in_scope(path)]
OTHER = [path for path in ALL if not in_scope(path)]


def read(path: Path) -> Inventory:
    return json.loads(path.read_text())


def source(inventory: Inventory, name: str, *, values: bool = False, seed: int = 0) -> TensorDict:
    """The inventory's tensors. Without ``values`` only alphas have data, the rest are meta tensors."""
    return TensorDict(tensors(inventory, values=values, seed=seed), name, metadata(inventory))


def metadata(inventory: Inventory) -> dict[str, str]:
    return {key: str(value) for key, value in (inventory.get("metadata") or {}).items()}


def tensors(inventory: Inventory, *, values: bool = False, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        key: _tensor(key, shape, _dtype(inventory, key), generator, values)
        for key, shape in inventory["tensors"].items()
    }


def _dtype(inventory: Inventory, key: str) -> torch.dtype:
    name = (inventory.get("dtypes") or {}).get(key) or inventory.get("dtype") or "F32"
    return TORCH_DTYPES[name]


def _tensor(key: str, shape: list[int], dtype: torch.dtype, generator: torch.Generator, values: bool) -> torch.Tensor:
    if key.endswith(".alpha"):
        return torch.full(shape, 4, dtype=dtype)
    if not values:
        return torch.empty(shape, dtype=dtype, device="meta")
    return (torch.randn(shape, generator=generator) / 10).to(dtype)
