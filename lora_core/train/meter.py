"""The numbers of the last steps: kept on the device, looked at together.

Reading a number waits for everything that was sent to the device before it, so losses and norms of gradients are read
every ``run.log_every`` steps at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager

import torch

from .events import Progress
from .memory import peak
from .pieces import Pieces
from .stepping import Taken
from .stops import DivergedError, NotLearningError, check_losses

# Of the speed, how much each look keeps of the one before: the bar's time left is steady, and still follows.
_KEPT = 0.7


class Meter:
    """Collects what steps leave behind.

    Attributes:
        loss: mean over the steps of the last look, NaN before the first.
        speed: steps a second of late, without what paused.
        seconds: in steps, all together.
        steps: that were taken in them.
        memory: bytes at the most, of what was seen.
    """

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self.loss, self.speed = math.nan, 0.0
        self.seconds, self.steps = 0.0, 0
        self.memory = 0
        self._taken: list[Taken] = []
        self._overflows = 0
        self._since = time.perf_counter()

    def add(self, taken: Taken) -> None:
        self._taken.append(taken)

    @property
    def pending(self) -> bool:
        """Whether there are numbers that nobody has looked at."""
        return bool(self._taken)

    @contextmanager
    def paused(self) -> Generator[None, None, None]:
        """A block whose time is none of the steps'."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - began

    def look(self, done: int) -> Progress | None:
        """Read all that was collected; every process must call it. None where there is nothing new.

        Args:
            done: finished steps.

        Raises:
            DivergedError: a loss or a gradient is NaN or infinite.
            NotLearningError: in fp16, every gradient overflows.
        """
        taken, self._taken = self._taken, []
        if not taken:
            return None
        processes = self.pieces.processes
        local = torch.stack([one.losses for one in taken])
        # (processes * n, own) -> (n, processes * own), as ``Taken.names`` has them
        gathered = processes.gather(local).view(processes.count, *local.shape).transpose(0, 1).reshape(len(taken), -1)
        losses, norms = gathered.cpu(), torch.stack([one.norm for one in taken]).cpu()
        steps = [one.step + 1 for one in taken]
        check_losses(steps, losses, [one.names for one in taken])
        self._check_norms(taken, [float(norm) for norm in norms])
        self._time(len(taken))
        self.memory = max(self.memory, peak(processes.device))
        means = [float(loss) for loss in losses.mean(dim=1)]
        self.loss = sum(means) / len(means)
        left = self.pieces.config.run.steps - done
        return Progress(
            step=done,
            steps=self.pieces.config.run.steps,
            loss=self.loss,
            losses=list(zip(steps, means, strict=True)),
            rates={str(group["name"]): float(group["lr"]) for group in self.pieces.optimizer.param_groups},
            steps_per_second=self.speed,
            seconds_left=left / self.speed if self.speed else math.inf,
            memory=self.memory,
            extra={"gradient": float(norms.mean())},
        )

    def _check_norms(self, taken: list[Taken], norms: list[float]) -> None:
        """A gradient that is not finite spoils the weights, while the loss that it came from still was fine."""
        scaler = self.pieces.processes.scaler
        for one, norm in zip(taken, norms, strict=True):
            if math.isfinite(norm):
                self._overflows = 0
            elif scaler is None:
                raise DivergedError(one.step + 1, one.names, norm, "gradient")
            else:  # the scaler leaves the step out and scales less
                self._overflows += 1
        if self._overflows >= self.pieces.config.run.stuck_after:
            raise NotLearningError("all that is trained", self._overflows, "every gradient overflows fp16")

    def _time(self, count: int) -> None:
        now = time.perf_counter()
        took, self._since = max(now - self._since, 1e-9), now
        self.seconds, self.steps = self.seconds + took, self.steps + count
        latest = count / took
        # The first steps compile, and fill caches of the libraries.
        self.speed = latest if self.steps <= 2 * count else _KEPT * self.speed + (1 - _KEPT) * latest
