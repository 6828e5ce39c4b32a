"""The weights and LoRAs that `patch.py` measures: random numbers in a real model's shapes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from math import ceil, prod

import torch

from lora_core import Stack, StackEntry, Strengths, map_source
from lora_core.architectures import ARCHITECTURES
from lora_core.io import TensorDict
from lora_core.patching import Patch, bind

STRENGTH = 0.8
ALPHA_PER_RANK = 0.5
# Attention, feed-forward and projections of the UNets: what nearly every LoRA changes.
ADAPTED = re.compile(r"attn\d\.to_|\.ff\.net\.|proj_(in|out)$")
PORTION = 1 << 25  # numbers in a portion: more than caches hold, so that each contender finds the memory cold


@dataclass(frozen=True)
class Case:
    """One weight with the LoRAs that change it.

    Args:
        weight: as stored.
        factors: (up, down) of each LoRA, in the order of the stack.
        patch: the same, as the library binds it.
    """

    weight: torch.Tensor
    factors: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    patch: Patch

    @property
    def rank(self) -> int:
        return self.factors[0][1].shape[0]

    def concatenated(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All factors as one product in float32, strength and scale in the first."""
        ups = [up.flatten(1).float() * (STRENGTH * ALPHA_PER_RANK) for up, _ in self.factors]
        return torch.cat(ups, dim=1), torch.cat([down.flatten(1).float() for _, down in self.factors])


@dataclass(frozen=True)
class Work:
    """Cases in portions; the time for them times ``scale`` is the time for the whole model."""

    portions: list[list[Case]]
    scale: float
    summary: str


def make(model: str, limit: int, loras: int, rank: int, dtype: torch.dtype, device: str) -> Work:
    """Random weights and LoRAs, bound the way files are: kohya names, mapping, binding.

    Args:
        model: name in ``ARCHITECTURES``.
        limit: millions of numbers; of a larger model only a sample is made, with every shape in it.
        loras, rank: of the stack. dtype: of the weights; factors are fp16.
    """
    torch.manual_seed(0)
    architecture = ARCHITECTURES.get(model)
    places = [
        (key.path, tuple(module.shapes["weight"]))
        for key, module in architecture.walk()
        if key.component == "denoiser" and ADAPTED.search(key.path) and "weight" in module.shapes
    ]
    chosen = _sample(places, limit)
    files = [_file(chosen, rank, device) for _ in range(loras)]
    entries = [
        StackEntry(map_source(TensorDict(file, f"lora {number}"), model), Strengths(model=STRENGTH))
        for number, file in enumerate(files)
    ]
    patches = bind(Stack(tuple(entries)), architecture.shape, architecture).patches
    by_path = {target.module.path: patch for target, patch in patches.items()}
    portions: list[list[Case]] = [[]]
    for path, shape in chosen:
        if sum(case.weight.numel() for case in portions[-1]) >= PORTION:
            portions.append([])
        name = _name(path)
        factors = tuple((file[f"{name}.lora_up.weight"], file[f"{name}.lora_down.weight"]) for file in files)
        portions[-1].append(Case(_random(shape, dtype, device), factors, by_path[path]))
    everything, part = (sum(prod(shape) for _, shape in some) for some in (places, chosen))
    summary = f"{len(places)} weights of {architecture.title}, {everything / 1e6:.0f} million numbers"
    if part < everything:
        summary += f" (measured on {len(chosen)} of them, each shape at least once; seconds scaled up by size)"
    return Work(portions, everything / part, summary)


def _sample(places: list[tuple[str, tuple[int, ...]]], limit: int) -> list[tuple[str, tuple[int, ...]]]:
    """Every n-th weight of each shape, so that about ``limit`` million numbers are left."""
    share = min(1.0, limit * 1e6 / sum(prod(shape) for _, shape in places))
    wanted = {shape: ceil(count * share) for shape, count in Counter(shape for _, shape in places).items()}
    taken: Counter[tuple[int, ...]] = Counter()
    chosen: list[tuple[str, tuple[int, ...]]] = []
    for path, shape in places:
        if taken[shape] < wanted[shape]:
            taken[shape] += 1
            chosen.append((path, shape))
    return chosen


def _file(places: list[tuple[str, tuple[int, ...]]], rank: int, device: str) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path, shape in places:
        name, ones = _name(path), (1,) * (len(shape) - 2)
        tensors[f"{name}.lora_down.weight"] = _random((rank, *shape[1:]), torch.float16, device)
        tensors[f"{name}.lora_up.weight"] = _random((shape[0], rank, *ones), torch.float16, device)
        tensors[f"{name}.alpha"] = torch.tensor(rank * ALPHA_PER_RANK)
    return tensors


def _name(path: str) -> str:
    return f"lora_unet_{path.replace('.', '_')}"


def _random(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    return torch.randn(shape, device=device).mul_(0.02).to(dtype)
