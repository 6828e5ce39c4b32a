"""Where the run computes: device and processes through accelerate, number types through torch.

Every process holds the whole model, takes its share of each step's pictures, and averages gradients with the others
once a step. Adapters are small, so that is one message; the frozen model is never wrapped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from datetime import timedelta
from typing import Any, cast

import torch
from torch import Tensor

from ..errors import ConfigError
from .config import RunSection

# How long processes wait for each other: one of them may fill caches or draw samples for hours.
PATIENCE = timedelta(days=1)

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Processes:
    """This process among those of the run, its device, and its number types."""

    def __init__(self, run: RunSection) -> None:
        from accelerate import PartialState  # pyright: ignore[reportMissingTypeStubs]

        # PartialState alone: Accelerator keeps one precision for the life of the process, and a host trains twice.
        self._state: Any = PartialState(cpu=run.device == "cpu", timeout=PATIENCE)
        self.index: int = self._state.process_index
        self.count: int = self._state.num_processes
        self.device = self._device(run.device)
        self.dtype = DTYPES[run.precision]
        if run.precision == "fp16" and self.device.type == "cpu":
            raise ConfigError("run.precision", ["fp16 needs a GPU, and this run is on the CPU: set fp32 or bf16"])
        # Gradients of fp16 underflow: the loss is scaled up, and the gradient down before the step.
        self.scaler = torch.amp.GradScaler(self.device.type) if run.precision == "fp16" else None

    def _device(self, wanted: str) -> torch.device:
        # The state's own device is the first run's of this program; with one process the settings decide.
        if self.count > 1:
            return self._state.device
        name = str(self._state.default_device) if wanted == "auto" else wanted
        try:
            return torch.empty(0, device=name).device  # with its number, as tensors on it say of themselves
        except (RuntimeError, AssertionError) as error:
            why = str(error).strip().split("\n")[0]
            raise ConfigError("run.device", [f"{wanted} cannot be used ({why}): set auto or cpu"]) from None

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
        """The gradient of ``loss``, scaled where the precision wants it."""
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward()  # pyright: ignore[reportUnknownMemberType]

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """The mean over processes, in one message.

        A parameter without a gradient counts as zero: who has one may differ between processes.
        """
        if self.count == 1:
            return
        from accelerate import utils  # pyright: ignore[reportMissingTypeStubs]

        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([g.reshape(-1).float() for g in gradients])
        mean = cast(Tensor, cast(Any, utils).reduce(flat, "mean"))
        for parameter, part in zip(parameters, torch.split(mean, [g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def gather(self, tensor: Tensor) -> Tensor:
        """The rows of all processes, in the order of the processes."""
        if self.count == 1:
            return tensor
        from accelerate import utils  # pyright: ignore[reportMissingTypeStubs]

        return cast(Tensor, cast(Any, utils).gather(tensor))

    def any(self, flag: bool) -> bool:
        """Whether any process says so; all must ask."""
        if self.count == 1:
            return flag
        return bool(self.gather(torch.tensor([float(flag)], device=self.device)).any())

    def wait(self) -> None:
        """For all processes."""
        self._state.wait_for_everyone()

    @contextlib.contextmanager
    def main_first(self) -> Generator[None, None, None]:
        """What fills caches runs on the main process first; the others then find them filled."""
        with self._state.main_process_first():
            yield
