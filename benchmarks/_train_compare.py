"""Whether both loops of `train.py` do the same: losses, gradients and factors, step by step, and host reads.

Both begin with the same factors and see the same pictures, noise and timesteps, which are functions of seed, step and
place in ours. The learning rate rises and falls within the few steps and gradients are clipped, so the last losses
agree only where gradients, clipping, optimizer and schedule do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _train_cases import CASES, architecture_of, settings
from _train_reference import Outcome, Plan
from _train_reference import train as train_reference
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lora_core.train.config import TrainConfig
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.events import Watcher
from lora_core.train.learning import Learning
from lora_core.train.pieces import build
from lora_core.train.processes import Processes
from lora_core.train.seeds import fraction, generator
from lora_core.train.stepping import Stepper
from lora_core.types import DENOISER

SEED = 3
# Below every gradient's norm here, so that each is clipped.
CLIP = 1e-3
RATE = 1e-3
# Operations whose result is a number on the host: on a GPU they wait for it.
READS = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
)


class HandedDraws:
    """The numbers that ours draws."""

    def __init__(self, batch: int) -> None:
        self.positions = range(batch)

    def latents(self, distribution: Any, step: int) -> Tensor:
        return distribution.mean + distribution.std * self._normal("latents", distribution.mean, step)

    def noise(self, latents: Tensor, step: int) -> Tensor:
        return self._normal("noise", latents, step)

    def timesteps(self, latents: Tensor, count: int, step: int) -> Tensor:
        parts = [fraction(SEED, "timestep", step, position) for position in self.positions]
        return (torch.tensor(parts, dtype=torch.float32) * count).long().to(latents.device)

    def _normal(self, what: str, like: Tensor, step: int) -> Tensor:
        shape = like.shape[1:]
        each = [torch.randn(shape, generator=generator(SEED, what, step, position)) for position in self.positions]
        return torch.stack(each).to(like.device, like.dtype)


class Reads(TorchDispatchMode):
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in READS
        return func(*args, **(kwargs or {}))


def compare(job: Mapping[str, Any], plan: Plan) -> dict[str, float]:
    """Differences as parts of the values, the largest of all steps, and host reads in one of our steps.

    Args:
        job: what to train, and ``steps``.
        plan: of the reference.
    """
    case, steps, folder = CASES[job["case"]], int(job["steps"]), Path(job["folder"])
    moving = {"learning_rate": RATE, "schedule": "cosine", "warmup": steps, "clip": CLIP}
    make = partial(settings, case, plan.base, plan.pictures, folder, device=plan.device, precision=plan.precision)
    run = {"steps": steps, "seed": SEED}
    ours = _ours(make(copied=True, optimizer=moving, run=run), case.model, plan.pictures)
    theirs = replace(
        plan,
        rate=RATE,
        schedule="cosine",
        warmup=steps // 10,  # what ours makes of it
        steps=steps,
        clip=CLIP,
        draws=HandedDraws(case.batch),
        order=ours.order,
        factors=ours.start,
    )
    left = iter([True] * steps + [False])
    peer = train_reference(theirs, lambda: next(left))
    cached = _ours(make(copied=False, run={"steps": 3, "seed": SEED}), case.model, plan.pictures, reads_at=2)
    return {
        "loss": _worst(ours.outcome.losses, peer.losses),
        "norm": _worst([float(norm) for norm in ours.outcome.norms], [float(norm) for norm in peer.norms]),
        "factors": _length(ours.outcome.factors, peer.factors) / _length(peer.factors, ours.start),
        "clipped": float(min(peer.norms)) / CLIP,
        "reads": cached.reads,
    }


@dataclass
class Ours:
    """Factors at the start by PEFT's names, pictures of each step by their rows, and what came of it."""

    start: dict[str, Tensor]
    order: list[list[int]]
    outcome: Outcome
    reads: int = 0


def _ours(config: TrainConfig, model: str, pictures: Path, reads_at: int = -1) -> Ours:
    """All steps of a run, host reads counted in one of them."""
    processes = Processes(config.run)
    denoiser = DiffusersDenoiser.load(config.model, device=processes.device, architecture=architecture_of(model))
    unet = denoiser.parts[DENOISER]
    pieces = build(config, processes, denoiser)
    try:
        rows = {name: row for row, name in enumerate(_names(pictures))}
        order = [
            [rows[pieces.data.pictures[sample.picture].name] for sample in pieces.data.samples(step, config.run.batch)]
            for step in range(config.run.steps)
        ]
        found = Ours(_factors(unet), order, Outcome())
        pieces.data.prepare(denoiser, None, Watcher(), text=pieces.text_is_fixed)
        denoiser.set_mode("train")
        pieces.network.train()
        stepper, reads = Stepper(pieces, Learning(pieces.groups, config.run.stuck_after)), Reads()
        for step in range(config.run.steps):
            with reads if step == reads_at else nullcontext():
                taken = stepper.take(step)
            found.outcome.losses.append(float(taken.losses.mean()))
            found.outcome.norms.append(taken.norm)
        found.outcome.factors, found.reads = _factors(unet), reads.count
    finally:
        pieces.close()
    return found


def _names(pictures: Path) -> list[str]:
    lines = (pictures / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["file_name"] for line in lines]


def _factors(unet: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name.replace(".loom.", ".default."): one.detach().cpu().clone()
        for name, one in unet.named_parameters()
        if one.requires_grad
    }


def _worst(ours: list[float], theirs: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


def _length(some: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    return float(torch.stack([(some[name] - others[name]).norm() for name in others]).norm())
