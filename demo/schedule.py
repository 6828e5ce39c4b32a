"""A learning rate that ends when the time does: warm-up, then a cosine over a budget of minutes."""

from __future__ import annotations

import math
import time


class Budget:
    """Training time already spent, across restarts, against the time there is.

    progress p = spent / total in [0, 1];  rate(p) = peak * min(1, p / warmup) * (1 + cos(pi p)) / 2
    """

    def __init__(self, minutes: float, spent: float = 0.0, warmup: float = 0.02) -> None:
        self.total = minutes * 60.0
        self.warmup = warmup
        self._spent = spent
        self._start = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds of training so far, those of earlier runs included."""
        return self._spent + time.monotonic() - self._start

    @property
    def progress(self) -> float:
        return min(1.0, self.spent / self.total)

    @property
    def is_over(self) -> bool:
        return self.spent >= self.total

    def rate(self, peak: float) -> float:
        """The learning rate now; never quite 0, so that the last step still counts."""
        p = self.progress
        return peak * max(1e-3, min(1.0, p / self.warmup) * 0.5 * (1.0 + math.cos(math.pi * p)))
