"""LoRA files for host tests: seeded random factors of modules of a family, under the names of two formats."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lora_core.architectures import ARCHITECTURES
from lora_core.types import DENOISER

# What kohya trains by default, and the attention alone.
TRANSFORMERS = r"transformer_blocks.*(attn|ff)|proj_in$|proj_out$|self_attn|mlp\.fc"
ATTENTION = r"attn[12]\.to_(q|k|v|out\.0)$"


@dataclass(frozen=True)
class Factors:
    """One module's factors: ``up @ down`` has about ``size`` times the spread of a weight of its shape."""

    component: str
    diffusers: str
    kohya: str
    up: torch.Tensor
    down: torch.Tensor


def factors(
    architecture: str, *, seed: int, rank: int = 4, modules: str = TRANSFORMERS, size: float = 0.3,
    components: tuple[str, ...] | None = None,
) -> list[Factors]:  # fmt: skip
    """Factors for every weight of two or more dimensions whose diffusers path matches ``modules``."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Factors] = []
    for component in ARCHITECTURES.get(architecture).components:
        if components is not None and component.name not in components:
            continue
        for module in component.modules.values():
            shape = module.shapes["weight"]
            if len(shape) < 2 or not re.search(modules, module.diffusers):
                continue
            inner = shape[1:]
            fan_in = torch.Size(inner).numel()
            kohya = f"{component.kohya_prefixes[0]}_{module.diffusers.replace('.', '_')}"
            up = torch.randn(shape[0], rank, *(1 for _ in inner[1:]), generator=generator) * size / sqrt(rank)
            down = torch.randn(rank, *inner, generator=generator) / sqrt(fan_in)
            found.append(Factors(component.name, module.diffusers, kohya, up.half(), down.half()))
    return found


def kohya(parts: list[Factors], alpha: float | None = None) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for part in parts:
        tensors[f"{part.kohya}.lora_up.weight"] = part.up
        tensors[f"{part.kohya}.lora_down.weight"] = part.down
        if alpha is not None:
            tensors[f"{part.kohya}.alpha"] = torch.tensor(alpha)
    return tensors


def peft(parts: list[Factors]) -> dict[str, torch.Tensor]:
    """As diffusers saves what PEFT trained: ``unet.<path>.lora_A.weight``."""
    folder = {DENOISER: "unet"}
    return {
        f"{folder.get(part.component, part.component)}.{part.diffusers}.lora_{letter}.weight": tensor
        for part in parts
        for letter, tensor in (("A", part.down), ("B", part.up))
    }


def with_dora(tensors: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """kohya names with a magnitude per output, as LyCORIS writes them; near 1, the norm of a random row."""
    generator = torch.Generator().manual_seed(seed)
    magnitudes = {
        key.replace("lora_up.weight", "dora_scale"): (
            1 + 0.2 * torch.randn(up.shape[0], *(1 for _ in up.shape[1:]), generator=generator)
        ).half()
        for key, up in tensors.items()
        if key.endswith("lora_up.weight")
    }
    return tensors | magnitudes


def save(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata=metadata or None)
    return path


def read(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)
