"""What a run tells whoever watches it: a terminal, a host's progress bar, files with curves.

A watcher gets finished numbers, never tensors on a device, so that watching costs a run no wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is, every ``run.log_every`` steps.

    Args:
        step, steps: done and in all.
        loss: mean over the steps since the last one.
        losses: of each of those steps, (step, loss).
        rates: learning rate of each group of parameters, ``{"denoiser": 1e-4}``.
        steps_per_second, seconds_left: over the last steps.
        memory: bytes in use at the most so far, on the device; of the process on a CPU.
    """

    step: int
    steps: int
    loss: float
    losses: Sequence[tuple[int, float]]
    rates: Mapping[str, float]
    steps_per_second: float
    seconds_left: float
    memory: int
    extra: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Sampled:
    """Pictures of one moment, one a prompt."""

    step: int
    prompts: Sequence[str]
    pictures: Sequence[Image]


class Watcher:
    """Does nothing; subclasses override what they show. ``Watchers`` tells several."""

    def stage(self, what: str, done: int, total: int) -> None:
        """Work before and beside the steps: "reading captions", "caching latents", "saving"."""

    def progress(self, progress: Progress) -> None: ...

    def validated(self, step: int, losses: Mapping[str, float]) -> None:
        """``{"validation": 0.41, "validation t=200": ..., "train": ..., "leakage": ...}``."""

    def sampled(self, sampled: Sampled) -> None: ...

    def saved(self, path: Path, step: int) -> None: ...

    def warned(self, message: str) -> None:
        """One line that a user should see."""

    def noted(self, message: str) -> None:
        """One line that is good to know."""

    def cancelled(self) -> bool:
        """Asked after each step: True ends the run after saving its state and weights."""
        return False


class Watchers(Watcher):
    """Tells each in turn; any of them may cancel."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self.watchers = tuple(watchers)

    def stage(self, what: str, done: int, total: int) -> None:
        for watcher in self.watchers:
            watcher.stage(what, done, total)

    def progress(self, progress: Progress) -> None:
        for watcher in self.watchers:
            watcher.progress(progress)

    def validated(self, step: int, losses: Mapping[str, float]) -> None:
        for watcher in self.watchers:
            watcher.validated(step, losses)

    def sampled(self, sampled: Sampled) -> None:
        for watcher in self.watchers:
            watcher.sampled(sampled)

    def saved(self, path: Path, step: int) -> None:
        for watcher in self.watchers:
            watcher.saved(path, step)

    def warned(self, message: str) -> None:
        for watcher in self.watchers:
            watcher.warned(message)

    def noted(self, message: str) -> None:
        for watcher in self.watchers:
            watcher.noted(message)

    def cancelled(self) -> bool:
        return any(watcher.cancelled() for watcher in self.watchers)


class OnlyCancels(Watcher):
    """For all processes but the main one: it passes on whether to stop, and tells nothing."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def cancelled(self) -> bool:
        return self._watcher.cancelled()
