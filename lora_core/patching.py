"""The fused application of a patch, the one place where a weight is changed.

    W' = round(step_n(... step_1(float32(W))))

``fuse`` turns consecutive additive low-rank deltas into one product of concatenated factors,
``W + [s1*up1 | s2*up2 | ...] @ [down1; down2; ...]``, and ``apply_patch`` does the steps on one float32 copy
and rounds once. Live patches, dense and streamed merges all go through ``apply_steps``, so that they agree to
the last bit. ``bind`` and its types (``binding``) are re-exported: import all of patching from here.

Memory: one weight in float32 and the factors of its patch at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from .adapters import Delta, Factors
from .binding import Binding, BindReport, Patch, PatchPart, bind
from .errors import ConfigError, ShapeMismatchError
from .io.dtypes import FLOATS, FP8
from .types import Slice

__all__ = [
    "BindReport",
    "Binding",
    "DeltaStep",
    "LowRankStep",
    "Patch",
    "PatchPart",
    "Step",
    "apply_patch",
    "apply_steps",
    "bind",
    "fuse",
    "rounded",
]

Device: TypeAlias = "torch.device | str"


@dataclass(frozen=True, slots=True)
class LowRankStep:
    """``W + up @ down`` on a slice: float32, strengths and scales are in ``up`` (out, ranks); down is (ranks, in)."""

    up: torch.Tensor
    down: torch.Tensor
    slice: Slice | None


@dataclass(frozen=True, slots=True)
class DeltaStep:
    """A change that is no product of factors, or depends on the weight: it keeps its place in the order."""

    delta: Delta
    strength: float
    slice: Slice | None


Step: TypeAlias = "LowRankStep | DeltaStep"


def fuse(patch: Patch, device: Device = "cpu") -> tuple[Step, ...]:
    """The steps of a patch, factors on ``device``.

    Additive low-rank deltas commute, so a run of them becomes one step per slice; anything else ends the run.
    """
    steps: list[Step] = []
    run: dict[Slice | None, list[tuple[float, Factors]]] = {}
    for part in patch.parts:
        factors = part.delta.factors(device)
        if factors is None:
            steps += _products(run)
            run = {}
            steps.append(DeltaStep(part.delta, part.strength, part.slice))
        else:
            run.setdefault(part.slice, []).append((part.strength, factors))
    return (*steps, *_products(run))


def _products(run: Mapping[Slice | None, list[tuple[float, Factors]]]) -> list[Step]:
    return [LowRankStep(*_concatenate(factors), place) for place, factors in run.items()]


def _concatenate(factors: list[tuple[float, Factors]]) -> tuple[torch.Tensor, torch.Tensor]:
    """``[s1*scale1*up1 | ...]`` and ``[down1; ...]`` in float32, cast while they are copied into place."""
    first = factors[0][1]
    ranks = sum(one.down.shape[0] for _, one in factors)
    up = torch.empty(first.up.shape[0], ranks, dtype=torch.float32, device=first.up.device)
    down = torch.empty(ranks, first.down.shape[1], dtype=torch.float32, device=first.down.device)
    start = 0
    for strength, one in factors:
        end = start + one.down.shape[0]
        up[:, start:end].copy_(one.up).mul_(strength * one.scale)
        down[start:end].copy_(one.down)
        start = end
    return up, down


def apply_patch(
    weight: torch.Tensor, patch: Patch, *, device: Device | None = None, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """The patched weight as a new tensor; ``weight`` is not written to.

    Args:
        weight: of the patch's shape, any float dtype, fp8 included (a scaled fp8 weight: dequantised first).
        patch: what to do.
        device: where to compute, and where the result is; None: where the weight is.
        dtype: of the result; None: the weight's. fp8 saturates instead of overflowing to NaN or infinity.

    Computes in float32 (in float64 for a float64 weight, so that nothing of it is lost) and rounds once.

    Raises:
        ShapeMismatchError: the weight is not the one that was bound.
        ConfigError: the weight is stored as integers.
    """
    name = f"{'.'.join(patch.target.module)}.{patch.target.parameter}"
    if tuple(weight.shape) != patch.shape:
        files = ", ".join(dict.fromkeys(part.file for part in patch.parts))
        hint = "Bind the stack to the model that it is applied to."
        raise ShapeMismatchError(files, name, patch.shape, tuple(weight.shape), hint)
    if weight.dtype not in FLOATS:
        raise ConfigError(
            name, [f"a weight of {weight.dtype} cannot be patched; load the model as fp32, fp16, bf16 or fp8"]
        )
    wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
    # Contiguous whatever the weight's memory format, so that the products can be written into views of it.
    work = torch.empty(weight.shape, dtype=wide, device=device or weight.device)
    work.copy_(weight)
    return rounded(apply_steps(work, fuse(patch, work.device)), dtype or weight.dtype)


def apply_steps(work: torch.Tensor, steps: Iterable[Step]) -> torch.Tensor:
    """Do the steps on a contiguous float32 (float64) weight that the caller owns: it is overwritten.

    Returns the result, which is ``work`` itself or another tensor.
    """
    for step in steps:
        part = work if step.slice is None else work.narrow(*step.slice)
        if isinstance(step, LowRankStep):
            flat = part.view(part.shape[0], -1)
            flat.addmm_(step.up.to(work.dtype), step.down.to(work.dtype))
        elif step.slice is None:
            work = step.delta.apply(work, step.strength)
        else:
            part.copy_(step.delta.apply(part, step.strength))
    return work


def rounded(work: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``work`` in ``dtype``, rounded once to nearest; fp8 saturates at its largest number, NaN stays NaN."""
    if dtype in FP8 and work.dtype != dtype:
        largest = torch.finfo(dtype).max
        work = work.clamp(-largest, largest)
    return work.to(dtype)
