"""What rounding took from a patched weight: measured where the exact weight is at hand, block by block.

``error = |W_written - W'|``, W' the patched weight in float32 before it was rounded, |.| the root of the sum of squares
over all that a patch covers. Against the weight, ``error / |W'|``, it says how good the number type is; against the
change, ``error / |W' - W|``, how much of what the stack does got lost in it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

import torch

WORST = 5
# Of parts with this many numbers every fourth row is measured, so that the merge hardly takes longer for it; what many
# rows agree on is known to a few hundredths of itself.
MANY, STEP = 1 << 18, 4


@dataclass(frozen=True, slots=True)
class Rounding:
    """The error of one tensor.

    Args:
        weight: against the weight.
        change: against the change; None where the stack changed nothing.
    """

    weight: float
    change: float | None


class Meter:
    """Sums of squares of one tensor; ``add`` is a ``patching.Watch``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._weight = self._change = self._error = 0.0

    def add(self, before: torch.Tensor, exact: torch.Tensor, after: torch.Tensor) -> None:
        """A part of the tensor: before the patch, patched, and as it is written."""
        if exact.numel() >= MANY:
            before, exact, after = before[::STEP], exact[::STEP], after[::STEP]
        exact = exact.float()
        weight, change, error = (_square(one) for one in (exact, exact - before.float(), exact - after.float()))
        with self._lock:
            self._weight += weight
            self._change += change
            self._error += error

    def read(self) -> Rounding:
        """The error so far."""
        change = sqrt(self._error / self._change) if self._change else None if self._error else 0.0
        return Rounding(sqrt(self._error / self._weight) if self._weight else 0.0, change)


def _square(values: torch.Tensor) -> float:
    flat = values.reshape(-1)
    return float(torch.dot(flat, flat))


def worst(rounding: Mapping[str, Rounding], count: int = WORST) -> list[str]:
    """Keys whose change lost most to rounding, the worst first."""

    def loss(key: str) -> float:
        change = rounding[key].change
        return float("inf") if change is None else change

    return sorted(rounding, key=loss, reverse=True)[:count]


def rounding_json(rounding: Mapping[str, Rounding]) -> dict[str, object]:
    """Mean and largest error, the worst tensors, and all of them; fractions, not percent."""
    if not rounding:
        return {}
    of_weight = [one.weight for one in rounding.values()]
    of_change = [one.change for one in rounding.values() if one.change is not None]
    return {
        "of_weight": {"mean": _short(fmean(of_weight)), "max": _short(max(of_weight))},
        "of_change": {"mean": _short(fmean(of_change)), "max": _short(max(of_change))} if of_change else None,
        "worst": worst(rounding),
        "layers": {
            key: {"weight": _short(one.weight), "change": None if one.change is None else _short(one.change)}
            for key, one in rounding.items()
        },
    }


def _short(value: float) -> float:
    """Three digits; more would be noise."""
    return float(f"{value:.3g}")
