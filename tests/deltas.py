"""Deltas and patches for tests, made from tensors the way the mapping makes them from files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lora_core.adapters import ADAPTER_TYPES, Delta, Group
from lora_core.io import TensorDict
from lora_core.patching import Patch, PatchPart
from lora_core.types import DENOISER, ModuleKey, Shape, Slice, Target

TARGET = Target(ModuleKey(DENOISER, "somewhere"))


def deltas(
    kind: str, roles: Mapping[str, torch.Tensor], shapes: Mapping[str, Shape], alpha: float | None = None
) -> Mapping[str, Delta]:
    """The deltas of one module: parameter -> delta. ``roles`` are named as in ``adapters.base``."""
    source = TensorDict(roles, "test.safetensors")
    return ADAPTER_TYPES.get(kind).build(Group("test.safetensors", "module", dict(source), shapes, alpha))


def delta_of(kind: str, roles: Mapping[str, torch.Tensor], weight: Shape, alpha: float | None = None) -> Delta:
    """The delta of a module's weight."""
    return deltas(kind, roles, {"weight": tuple(weight)}, alpha)["weight"]


def patch_of(weight: torch.Tensor, *parts: tuple[Delta, float] | tuple[Delta, float, Slice | None]) -> Patch:
    """A patch of (delta, strength) or (delta, strength, slice), in the order of a stack."""
    made = [PatchPart(part[0], part[1], part[2] if len(part) > 2 else None, "test.safetensors") for part in parts]
    return Patch(TARGET, tuple(weight.shape), tuple(made))


@dataclass(frozen=True)
class Random:
    """Reproducible random tensors and deltas."""

    generator: torch.Generator

    @classmethod
    def seeded(cls, seed: int = 0) -> Random:
        return cls(torch.Generator().manual_seed(seed))

    def tensor(self, *shape: int, dtype: torch.dtype = torch.float32, size: float = 1.0) -> torch.Tensor:
        return (torch.randn(*shape, generator=self.generator) * size).to(dtype)

    def lora(self, weight: Shape, rank: int, alpha: float | None = None, dtype: torch.dtype = torch.float32) -> Delta:
        out, *inner = weight
        roles = {
            "down": self.tensor(rank, *inner, dtype=dtype, size=0.3),
            "up": self.tensor(out, rank, *[1] * (len(inner) - 1), dtype=dtype, size=0.3),
        }
        return delta_of("lora", roles, weight, alpha)

    def dora(self, weight: Shape, rank: int, per_output: bool = True) -> Delta:
        out, into, *kernel = weight
        ones = [1] * len(kernel)
        magnitude = (out, 1, *ones) if per_output else (1, into, *ones)
        roles = {
            "down": self.tensor(rank, into, *kernel, size=0.3),
            "up": self.tensor(out, rank, *ones, size=0.3),
            "dora_scale": self.tensor(*magnitude).abs() + 0.5,
        }
        return delta_of("dora", roles, weight, rank / 2)

    def full(self, weight: Shape) -> Delta:
        return delta_of("full", {"diff": self.tensor(*weight, size=0.1)}, weight)
