"""The numbers of an adapter: NaN and infinity, which would blacken every picture, and what changes nothing at all."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import NamedTuple

import torch

from .adapters import Delta
from .adapters.base import AdditiveDelta
from .errors import NonFiniteError
from .io import TensorRef, TensorSource
from .stack import Adapter

# Trained factors and differences stay below 100, and half precision ends at 65,504.
HUGE = 10_000.0
_WIDE = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})


def check_finite(adapter: Adapter) -> None:
    """Read all tensors of an adapter once, at the speed of memory.

    Raises:
        NonFiniteError: naming the file, the key and how many of its values are NaN or infinite.
    """
    for _, delta in adapter.deltas:
        check_delta(adapter.file, delta)
    for encoders in adapter.embeddings.values():
        for ref in encoders.values():
            _check_tensor(adapter.file, ref)


def check_delta(file: str, delta: Delta) -> None:
    """One delta of ``check_finite``; ``file`` is for the error."""
    for ref in delta.tensors:
        _check_tensor(file, ref)
    if not isfinite(delta.scale):
        raise NonFiniteError(file, f"alpha of {delta.tensors[0].name}", 1, 1)


def _check_tensor(file: str, ref: TensorRef) -> None:
    if count := non_finite(ref.load()):
        raise NonFiniteError(file, ref.name, count, ref.numel)


def non_finite(tensor: torch.Tensor) -> int:
    """How many values are NaN or infinite."""
    if not tensor.is_floating_point():
        return 0
    values = _computable(tensor)
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    # One pass without a temporary: a NaN or an infinity reaches the sum. A sum that overflows is looked into.
    if isfinite(values.sum(dtype=wide).item()):
        return 0
    return int(values.numel() - values.isfinite().sum().item())


class Numbers(NamedTuple):
    """What is in a tensor.

    Args:
        nan, infinite: how many.
        total: values in all.
        largest: absolute value of the largest finite one, 0 where all are zero or there is none.
    """

    nan: int
    infinite: int
    total: int
    largest: float

    @property
    def finite(self) -> bool:
        return not self.nan and not self.infinite


def examine(source: TensorSource) -> Iterator[tuple[TensorRef, Numbers]]:
    """Each tensor of floating point numbers of a file, used or not, with what is in it. Reads all of the file."""
    for ref in source.values():
        tensor = ref.load()
        if tensor.is_floating_point() and tensor.numel():
            yield ref, numbers_of(tensor)
        source.forget(ref)


def numbers_of(tensor: torch.Tensor) -> Numbers:
    """What is in a tensor of floating point numbers that is not empty."""
    values = _computable(tensor)
    low, high = (value.item() for value in torch.aminmax(values))  # NaN where there is one
    if isfinite(low) and isfinite(high):
        return Numbers(0, 0, values.numel(), max(abs(low), abs(high)))
    nan, finite = values.isnan(), values.isfinite()
    count = int(nan.sum())
    largest = values.where(finite, 0).abs().max().item()
    return Numbers(count, values.numel() - int(finite.sum()) - count, values.numel(), largest)


def changes_nothing(delta: Delta) -> bool:
    """Whether a delta that does not depend on the weight is zero: an ``up`` that was never trained, say.

    Factors are looked at and not multiplied where there are two; reads them, so ask where a tensor is zero.
    """
    if not isinstance(delta, AdditiveDelta):
        return False
    factors = delta.factors()
    if factors is None:
        return not delta.difference("cpu", torch.float32).any()
    return factors.scale == 0 or not _computable(factors.up).any() or not _computable(factors.down).any()


def _computable(tensor: torch.Tensor) -> torch.Tensor:
    """fp8 and the dtypes of scales know no arithmetic."""
    return tensor if tensor.dtype in _WIDE else tensor.to(torch.float32)
