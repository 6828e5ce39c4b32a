"""Files made of key inventories: names and shapes of real files, seeded random values."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lora_core.io import TensorDict
from lora_core.io.dtypes import TORCH_DTYPES

Inventory = dict[str, Any]

FOLDER = Path(os.environ.get("LOOM_KEYS") or Path(__file__).resolve().parents[2] / "shared" / "keys") / "lora"

# Names of inventories are <base>__<writer>__<type>[_tag]. Writer -> the format that its names are of.
FORMATS = {
    "kohya": "kohya",
    "kohya-ldm": "kohya",
    "kohya-diffusers": "kohya",
    "kohya-lycoris": "kohya",
    "kohya-oft": "kohya",
    "diffusers-tokohya": "kohya",
    "onetrainer": "kohya",
    "onetrainer-kohya": "kohya",
    "onetrainer-legacy": "kohya",
    "simpletuner-lycoris": "kohya",
    "wan-fun": "kohya",
    "diffusers": "diffusers",
    "diffusers-bare": "diffusers",
    "diffusers-old": "diffusers",
    "diffusers-mid": "diffusers",
    "diffusers-peft": "diffusers",
    "aitoolkit-diffusers": "diffusers",
    "diffsynth": "diffusers",  # Qwen-Image's own names are diffusers'
    "motion": "original",
    "peft-raw": "peft",
    "peft-default": "peft",
    "peft-base-model": "peft",
    "simpletuner-peft": "peft",
    "comfy": "comfy",
    "comfy-peft-alpha": "comfy",
    "peft-comfy": "comfy",
    "onetrainer-comfy": "comfy",
    "aitoolkit": "comfy",
    "aitoolkit-bfl": "comfy",
    "bfl": "comfy",
    "diffusion-pipe": "comfy",
    "native-fused": "comfy",
    "bfl-control": "original",
    "onetrainer-omi": "omi",
    "xlabs": "xlabs",
    "uso": "xlabs",
    "cloneofsimo": "cloneofsimo",
}
# What inventories call a base -> the family in ``ARCHITECTURES``, where it is another word.
FAMILIES = {
    "sd15-motion": "sd15_motion",
    "sd35": "sd35_large",
    "hunyuan-video": "hunyuan_video",
    "qwen-image": "qwen_image",
    "z-image": "z_image",
    "stable-cascade": "cascade_c",
    "wan": "wan_t2v_14b",
    "chroma": "flux",  # the same modules and shapes; nothing in such a file tells them apart
}

ALL = sorted(FOLDER.glob("*.json"))


def parts(path: Path) -> tuple[str, str, str]:
    """Base, writer and type of an inventory's name."""
    base, writer, kind = path.stem.split("__")
    return base, writer, kind.split("_")[0]


def family(path: Path) -> str:
    """The family that a file with these tensors was made for."""
    base = str(read(path)["base"])
    return FAMILIES.get(base, base)


def reliable(path: Path) -> bool:
    """Whether the shapes are a real file's; some samples were made up by hand and give names alone."""
    return not read(path).get("shapes_unreliable")


@lru_cache(maxsize=256)
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
    if not shape:
        return torch.ones(shape, dtype=dtype)  # a switch, such as IA3's on_input: mapping reads it
    if not values:
        return torch.empty(shape, dtype=dtype, device="meta")
    return (torch.randn(shape, generator=generator) / 10).to(dtype)
