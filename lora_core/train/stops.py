"""Hard stops: what ends a run at once, because going on would waste hours or spoil a file.

Each is a fault that trainers are known to pass over in silence. A run that stops writes nothing over the last good
file and the last good state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..errors import LoomError


class Cancelled(Exception):
    """A denoiser raises it out of its work when somebody wants the run to end; state and weights are then saved.

    For hosts that end work wherever it is. Of one process: the others would wait for it.
    """


class TrainingStoppedError(LoomError, RuntimeError):
    """Training cannot go on; the message says why and what to do."""


class DivergedError(TrainingStoppedError, ArithmeticError):
    """The loss of a picture, or the gradient of a step, is NaN or infinite."""

    def __init__(self, step: int, pictures: Sequence[str], loss: float, what: str = "loss") -> None:
        self.step, self.pictures, self.loss = step, tuple(pictures), loss
        shown = ", ".join(self.pictures[:3]) + (f" and {len(pictures) - 3} more" if len(pictures) > 3 else "")
        super().__init__(
            f"step {step}: the {what} is {loss} for {shown}. Nothing was saved since the last good step. Lower the "
            f"learning rate, use bf16 or fp32 in place of fp16, or look at the picture; then start the command again."
        )


class NotLearningError(TrainingStoppedError):
    """A part that should train gets no gradient, or does not move."""

    def __init__(self, part: str, steps: int, why: str) -> None:
        self.part, self.steps, self.why = part, steps, why
        super().__init__(
            f"{part}: {why} in {steps} step{'' if steps == 1 else 's'}, so nothing would be learned. Check its "
            f"learning rate and that its modules are used by the model; in fp16 use bf16 or fp32."
        )


class OutOfMemoryError(TrainingStoppedError, MemoryError):
    """The device, or the CPU, has no memory left for a step."""

    def __init__(self, step: int, device: torch.device, batch: int, saved: bool) -> None:
        self.step, self.device, self.batch, self.saved = step, device, batch, saved
        lower = "Lower run.batch (and raise run.accumulate), lower" if batch > 1 else "Lower"
        kept = f" The state after step {step} is saved: the same command goes on." if saved else ""
        super().__init__(
            f"step {step + 1}: {device} has no memory left. {lower} data.resolution, or set run.checkpointing = true, "
            f'run.precision = "bf16" or model.quantise = "fp8".{kept}'
        )


class ResumeError(TrainingStoppedError, ValueError):
    """A state on disk cannot be continued."""


def check_losses(steps: Sequence[int], losses: Tensor, names: Sequence[Sequence[str]]) -> None:
    """Raise ``DivergedError`` for the first step with a loss that is not finite.

    Args:
        steps: n numbers of steps.
        losses: (n, pictures of a step) on the CPU.
        names: of the pictures, in the order of the columns, for each step.
    """
    if bool(torch.isfinite(losses).all()):
        return
    for step, row, of in zip(steps, losses, names, strict=True):
        wrong = [(name, float(loss)) for name, loss in zip(of, row, strict=True) if not math.isfinite(loss)]
        if wrong:
            raise DivergedError(step, [name for name, _ in wrong], wrong[0][1])


def check_gradients(norms: Mapping[str, float], step: int) -> None:
    """Raise ``NotLearningError`` for a part whose gradient is exactly zero; ``norms``: part -> norm of its gradient."""
    for part, norm in norms.items():
        if norm == 0:
            raise NotLearningError(part, step, "its gradient is exactly zero")


def check_moved(part: str, before: Iterable[Tensor], now: Iterable[Tensor], steps: int) -> None:
    """Raise ``NotLearningError`` when all parameters of a part are where they were ``steps`` steps before."""
    if all(torch.equal(a, b.detach().to(a.device, a.dtype)) for a, b in zip(before, now, strict=True)):
        raise NotLearningError(part, steps, "its parameters did not move")


def spill(reserved: int, total: int) -> str:
    """A warning where a run holds more memory than the GPU has, "" otherwise; both in bytes.

    Drivers (NVIDIA's on Windows since 536) then use the host's memory in silence, and a step takes ten times as long.
    """
    if reserved <= total:
        return ""
    return (
        f"the run holds {reserved / 2**30:.1f} GiB, the GPU has {total / 2**30:.1f}: the driver uses the host's memory "
        "for the rest, which is slow. Lower the batch or the resolution, or switch checkpointing on."
    )
