"""An average of the weights over the last steps, which is smoother than the last weights.

    average += (1 - d) (weights - average),   d = min(decay, (1 + n) / (10 + n)) after n updates

The average begins at the weights of the start, and the rising decay lets it forget them: a decay of 0.999 alone
would still have a third of the start in it after 1,000 steps.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ema:
    """The average of some parameters, in their dtype and on their device.

    Args:
        parameters: in an order that stays the same from run to run, as the state has no names.
        decay: share of the average that each update keeps, at the most.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"the decay of an average is between 0 and 1, got {decay}")
        self.decay, self.updates = decay, 0
        self._parameters = list(parameters)
        self._average = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """After each step of the optimizer; one kernel for all, and no wait for the device."""
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
        get_ema_multi_avg_fn(kept)(self._average, [parameter.detach() for parameter in self._parameters], None)
        self.updates += 1

    @contextmanager
    def swapped(self) -> Generator[None, None, None]:
        """A block in which the parameters are the average; afterwards they are what they were, to the last bit."""
        before = [parameter.detach().clone() for parameter in self._parameters]
        self._put(self._average)
        try:
            yield
        finally:
            self._put(before)

    @torch.no_grad()
    def begin(self) -> None:
        """Anew, at the parameters as they are now."""
        for average, parameter in zip(self._average, self._parameters, strict=True):
            average.copy_(parameter)
        self.updates = 0

    def state_dict(self) -> dict[str, object]:
        """Copies, contiguous as files want them: the next update does not change them."""
        return {
            "updates": self.updates,
            "average": {
                str(place): tensor.clone(memory_format=torch.contiguous_format)
                for place, tensor in enumerate(self._average)
            },
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on from ``state_dict``; ValueError where it is of other parameters."""
        average, updates = cast("dict[str, Tensor]", state["average"]), cast("int", state["updates"])
        tensors = [average[str(place)] for place in range(len(average))]
        shapes = [tuple(tensor.shape) for tensor in tensors]
        expected = [tuple(tensor.shape) for tensor in self._average]
        if shapes != expected:
            raise ValueError(f"an average of {len(shapes)} tensors does not fit {len(expected)} parameters")
        for mine, theirs in zip(self._average, tensors, strict=True):
            mine.copy_(theirs)
        self.updates = updates

    @torch.no_grad()
    def _put(self, values: Iterable[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)
