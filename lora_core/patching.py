"""The fused application of a patch, the one place where a weight is changed.

    W' = round(step_n(... step_1(float32(W))))

``fuse`` turns consecutive additive low-rank deltas into one product of concatenated factors,
``W + [s1*up1 | s2*up2 | ...] @ [down1; down2; ...]``, and ``apply_patch`` does the steps on one float32 copy
and rounds once. Live patches, dense and streamed merges all go through ``apply_steps``, so that they agree to
the last bit. ``bind`` and its types (``binding``) are re-exported: import all of patching from here.

Memory: one weight's result and the factors of its patch at a time; the weight in float32 as a block of rows,
and whole only where a patch is more than one product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import ceil
from typing import TypeAlias, TypeVar

import torch

from .adapters import Delta, Factors
from .binding import Binding, BindReport, Patch, PatchPart, bind
from .errors import ConfigError, ShapeMismatchError
from .io.ahead import one_core_each
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
    "Watch",
    "apply_patch",
    "apply_steps",
    "bind",
    "fuse",
    "rounded",
]

Device: TypeAlias = "torch.device | str"
# Called with (weight, patched weight before rounding, the same after rounding), all of it or blocks of rows; from
# several threads at once. The tensors are lent: the next block overwrites them.
Watch: TypeAlias = "Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]"

# Numbers that one core works on at once: 2 MB of float32 stay in its second-level cache (benchmarks/patch.py: a
# quarter less time than with whole weights), and a weight has enough blocks for all cores.
CPU_BLOCK = 1 << 19


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


@torch.no_grad()
def apply_patch(
    weight: torch.Tensor,
    patch: Patch,
    *,
    device: Device | None = None,
    dtype: torch.dtype | None = None,
    watch: Watch | None = None,
) -> torch.Tensor:
    """The patched weight as a new tensor; ``weight`` is not written to.

    Args:
        weight: of the patch's shape, any float dtype, fp8 included (a scaled fp8 weight: dequantised first).
        patch: what to do.
        device: where to compute, and where the result is; None: where the weight is.
        dtype: of the result; None: the weight's. fp8 saturates instead of overflowing to NaN or infinity.
        watch: sees what is rounded; for measuring.

    Computes in float32 (in float64 for a float64 weight, so that nothing of it is lost) and rounds once.

    The result has the shape ``patch.result``.

    Raises:
        ShapeMismatchError: the weight is not the one that was bound.
        ConfigError: the weight is stored as integers.
    """
    _check(weight, patch)
    weight, patch = _widened(weight.to(device or weight.device), patch)
    steps = fuse(patch, weight.device)
    result = torch.empty(weight.shape, dtype=dtype or weight.dtype, device=weight.device)
    match steps:
        case [LowRankStep(slice=None) as step]:
            _add_product(_matrix(result), weight.reshape(result.shape[0], -1), step, watch)
        case _:
            work = torch.empty_like(result, dtype=_wide(weight.dtype))
            changed = apply_steps(work.copy_(weight), steps)
            result.copy_(_saturated(changed, result.dtype))
            if watch is not None:
                watch(weight, changed, result)
    return result


def _check(weight: torch.Tensor, patch: Patch) -> None:
    name = f"{'.'.join(patch.target.module)}.{patch.target.parameter}"
    if tuple(weight.shape) != patch.shape:
        files = ", ".join(dict.fromkeys(part.file for part in patch.parts))
        hint = "Bind the stack to the model that it is applied to."
        raise ShapeMismatchError(files, name, patch.shape, tuple(weight.shape), hint)
    if weight.dtype not in FLOATS:
        fault = f"a weight of {weight.dtype} cannot be patched; load the model as fp32, fp16, bf16 or fp8"
        raise ConfigError(name, [fault])


def _widened(weight: torch.Tensor, patch: Patch) -> tuple[torch.Tensor, Patch]:
    """The weight with the inputs that a part brings, at first zero; the parts without them keep to the others."""
    if patch.result == patch.shape:
        return weight, patch
    wide = torch.zeros(patch.result, dtype=weight.dtype, device=weight.device)
    wide[:, : weight.shape[1]] = weight
    widths = [part.delta.shape_after(patch.shape)[1] for part in patch.parts]
    parts = [
        part if width == wide.shape[1] else replace(part, slice=Slice(1, 0, width))
        for part, width in zip(patch.parts, widths, strict=True)
    ]
    return wide, replace(patch, shape=patch.result, parts=tuple(parts))


@torch.no_grad()
def apply_steps(work: torch.Tensor, steps: Iterable[Step]) -> torch.Tensor:
    """Do the steps on a contiguous float32 (float64) weight that the caller owns: it is overwritten.

    Returns the result, which is ``work`` itself or another tensor.
    """
    for step in steps:
        part = work if step.slice is None else work.narrow(*step.slice)
        if isinstance(step, LowRankStep):
            _add_product(_matrix(part), _matrix(part), step)
            continue
        [changed] = _each_on_one_core(part.device, [partial(step.delta.apply, part, step.strength)])
        if step.slice is None:
            work = changed.contiguous()
        else:
            part.copy_(changed)
    return work


def _add_product(target: torch.Tensor, source: torch.Tensor, step: LowRankStep, watch: Watch | None = None) -> None:
    """``target = round(source + up @ down)`` for 2-D views; they may be the same memory.

    Goes by blocks of rows, so that casting to float32, product and rounding meet in the cache and the weight
    passes through memory once.
    """
    wide = _wide(source.dtype)
    up, down = step.up.to(wide), step.down.to(wide)

    def add(blocks: Sequence[tuple[int, int]]) -> None:
        height = blocks[0][1] - blocks[0][0]
        scratch = None if target.dtype == wide else torch.empty(height, target.shape[1], dtype=wide, device=up.device)
        for start, end in blocks:
            into, values = target[start:end], source[start:end]
            block = into if scratch is None else scratch[: end - start]
            if block.data_ptr() != values.data_ptr():
                block.copy_(values)
            block.addmm_(up[start:end], down)
            if scratch is not None:
                into.copy_(_saturated(block, into.dtype))
                if watch is not None:
                    watch(values, block, into)

    blocks, cores = _blocks(target), torch.get_num_threads()
    shares = [blocks[first::cores] for first in range(min(cores, len(blocks)))]
    _each_on_one_core(target.device, [partial(add, share) for share in shares])


def _blocks(matrix: torch.Tensor) -> list[tuple[int, int]]:
    """(start, end) of about equal blocks of rows. They follow from the shape alone; a GPU takes all rows at once."""
    rows, columns = matrix.shape
    count = ceil(rows / max(1, CPU_BLOCK // columns)) if matrix.device.type == "cpu" else 1
    height = ceil(rows / count)
    return [(start, min(start + height, rows)) for start in range(0, rows, height)]


Result = TypeVar("Result")


def _each_on_one_core(device: torch.device, jobs: Sequence[Callable[[], Result]]) -> list[Result]:
    """Results of the jobs; those for the CPU run side by side, each on one core.

    How a matrix product rounds depends on how many cores share it. On one core it always rounds alike, so that a
    merge, which computes one tensor per core, and a live patch, which has all cores for one, agree to the last bit.
    """
    cores = torch.get_num_threads()
    if device.type != "cpu" or cores == 1:
        return [job() for job in jobs]
    inference = torch.is_inference_mode_enabled()  # a thread's own setting, and so is no_grad

    def run(job: Callable[[], Result]) -> Result:
        with torch.inference_mode(inference), torch.no_grad():
            return job()

    return list(_cores(cores).map(run, jobs))


@lru_cache(maxsize=1)
def _cores(count: int) -> ThreadPoolExecutor:
    """Threads that have one core each; kept, as starting them takes longer than most patches."""
    pool = ThreadPoolExecutor(count, "loom-patch")
    one_core_each(pool, count)
    return pool


def _matrix(weight: torch.Tensor) -> torch.Tensor:
    """A view (out, in * kernel area): of a whole parameter, or of a slice along its first two dimensions."""
    return weight.view(weight.shape[0], -1)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``values`` in ``dtype``, rounded to nearest; fp8 saturates at its largest number, NaN stays NaN."""
    return _saturated(values, dtype).to(dtype)


def _saturated(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Cut off at the largest number of an fp8 ``dtype``: a bare cast makes infinity or NaN of what lies beyond."""
    if dtype not in FP8:
        return values
    largest = torch.finfo(dtype).max
    return values.clamp(-largest, largest)
