"""How much memory a run takes."""

from __future__ import annotations

from typing import Any, cast

import torch

from .stops import spill

_WORDS = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")


def peak(device: torch.device) -> int:
    """Bytes: of a GPU the most that tensors took since ``forget``; of the process now, where there is no count."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import psutil

    return int(cast(Any, psutil).Process().memory_info().rss)


def forget(device: torch.device) -> None:
    """A run's own peak begins with it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def spilled(device: torch.device) -> str:
    """A warning where the run holds more than the GPU has; "" otherwise."""
    if device.type != "cuda":
        return ""
    return spill(torch.cuda.memory_reserved(device), cast(Any, torch.cuda).get_device_properties(device).total_memory)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or one of its libraries says so; MPS, cuBLAS and the CPU's allocator do it in words alone."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)
