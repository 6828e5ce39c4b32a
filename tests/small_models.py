"""A checkpoint and LoRAs of the demo's architecture with seeded random values: real layouts, few megabytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from lora_core import Adapter, Stack, StackEntry, Strengths, map_source
from lora_core.architectures import ARCHITECTURES, Architecture
from lora_core.io import TensorDict
from lora_core.types import Shape, Target

DEMO = ARCHITECTURES.get("loom_demo")

# Tensors that a checkpoint holds besides denoiser and text encoders.
OTHER: dict[str, torch.Tensor] = {
    "first_stage_model.decoder.conv_in.weight": torch.arange(288.0).reshape(8, 4, 3, 3) / 288,
    "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
    "alphas_cumprod": torch.linspace(1, 0, 1000),
    "model_ema.num_updates": torch.tensor(7, dtype=torch.int32),
}


def random(shape: Shape, seed: int, scale: float = 0.05) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def checkpoint_tensors(
    dtype: torch.dtype = torch.float16, architecture: Architecture = DEMO
) -> dict[str, torch.Tensor]:
    """Every parameter at its place in a single-file checkpoint, and ``OTHER``."""
    tensors: dict[str, torch.Tensor] = {}
    for key, module in architecture.walk():
        for parameter, shape in module.shapes.items():
            place = architecture.place(Target(key, parameter))
            assert place is not None
            tensors[place.key] = random(shape, len(tensors)).to(dtype)
    return tensors | OTHER


def write_checkpoint(
    path: Path, dtype: torch.dtype = torch.float16, rename: Callable[[str], str] = str, **metadata: str
) -> dict[str, torch.Tensor]:
    """Write it; returns the tensors."""
    tensors = {rename(key): tensor for key, tensor in checkpoint_tensors(dtype).items()}
    save_file(tensors, path, metadata)
    return tensors


def lora_tensors(
    seed: int = 1, rank: int = 4, architecture: Architecture = DEMO, only: str = "", alpha: float | None = None
) -> dict[str, torch.Tensor]:
    """A kohya LoRA on every weight of two and more dimensions whose kohya name contains ``only``."""
    tensors: dict[str, torch.Tensor] = {}
    for component in architecture.components:
        for module in component.modules.values():
            shape = module.shapes["weight"]
            name = f"{component.kohya_prefixes[0]}_{module.diffusers.replace('.', '_')}"
            if len(shape) < 2 or "embedding" in name or only not in name:
                continue
            down, up = (rank, *shape[1:]), (shape[0], rank, *(1 for _ in shape[2:]))
            tensors[f"{name}.lora_down.weight"] = random(down, seed + 2 * len(tensors)).half()
            tensors[f"{name}.lora_up.weight"] = random(up, seed + 2 * len(tensors) + 1).half()
            tensors[f"{name}.alpha"] = torch.tensor(rank / 2 if alpha is None else alpha)
    return tensors


def adapter(tensors: dict[str, torch.Tensor], name: str = "lora.safetensors") -> Adapter:
    return map_source(TensorDict(tensors, name))


def stack_of(*adapters: Adapter, strengths: Strengths = Strengths(0.8, 0.5)) -> Stack:  # noqa: B008
    return Stack(tuple(StackEntry(one, strengths) for one in adapters))
