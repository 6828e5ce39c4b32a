"""Are all numbers of an adapter finite? A diverged training or a damaged file would blacken every picture."""

from __future__ import annotations

from math import isfinite

import torch

from .adapters import Delta
from .errors import NonFiniteError
from .io.dtypes import FP8
from .stack import Adapter


def check_finite(adapter: Adapter) -> None:
    """Read all tensors of an adapter once, at the speed of memory.

    Raises:
        NonFiniteError: naming the file, the key and how many of its values are NaN or infinite.
    """
    for _, delta in adapter.deltas:
        check_delta(adapter.file, delta)


def check_delta(file: str, delta: Delta) -> None:
    """One delta of ``check_finite``; ``file`` is for the error."""
    for ref in delta.tensors:
        count = non_finite(ref.load())
        if count:
            raise NonFiniteError(file, ref.name, count, ref.numel)
    if not isfinite(delta.scale):
        raise NonFiniteError(file, f"alpha of {delta.tensors[0].name}", 1, 1)


def non_finite(tensor: torch.Tensor) -> int:
    """How many values are NaN or infinite."""
    if not tensor.is_floating_point():
        return 0
    values = tensor.to(torch.float32) if tensor.dtype in FP8 else tensor
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    # One pass without a temporary: a NaN or an infinity reaches the sum. A sum that overflows is looked into.
    if isfinite(values.sum(dtype=wide).item()):
        return 0
    return int(values.numel() - values.isfinite().sum().item())
