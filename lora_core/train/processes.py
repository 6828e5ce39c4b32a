"""Where the run computes: device and processes through accelerate, number types through torch.

Every process holds the whole model, takes its share of each step's pictures, and averages gradients with the others
once a step. Adapters are small, so that is one message; the frozen model is never wrapped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .config import RunSection

if TYPE_CHECKING:
    from accelerate import PartialState

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Processes:
    """This process among those of the run, its device, and its number types."""

    def __init__(self, run: RunSection) -> None:
        from accelerate import PartialState

        # PartialState alone: Accelerator keeps one precision for the life of the process, and a host trains twice.
        self._state: PartialState = PartialState(cpu=run.device == "cpu")
        self.device = self._state.device if run.device == "auto" else torch.device(run.device)
        self.index: int = self._state.process_index
        self.count: int = self._state.num_processes
        self.dtype = DTYPES[run.precision]
        # Gradients of fp16 underflow: the loss is scaled up, and the gradient down before the step.
        self.scaler = torch.amp.GradScaler(self.device.type) if run.precision == "fp16" else None

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.index == 0

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Products in the run's precision."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """The mean over processes, in one message.

        A parameter without a gradient counts as zero: who has one may differ between processes.
        """
        if self.count == 1:
            return
        from accelerate.utils import reduce

        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([g.reshape(-1).float() for g in gradients])
        mean: Tensor = reduce(flat, "mean")  # pyright: ignore[reportAssignmentType]
        for parameter, part in zip(parameters, mean.split([g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def gather(self, tensor: Tensor) -> Tensor:
        """The rows of all processes, in the order of the processes."""
        if self.count == 1:
            return tensor
        from accelerate.utils import gather

        return gather(tensor)  # pyright: ignore[reportReturnType]

    def any(self, flag: bool) -> bool:
        """Whether any process says so; all must ask."""
        if self.count == 1:
            return flag
        return bool(self.gather(torch.tensor([float(flag)], device=self.device)).any())

    def wait(self) -> None:
        """For all processes."""
        self._state.wait_for_everyone()

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """What fills caches runs on the main process first; the others then find them filled."""
        with self._state.main_process_first():
            yield
