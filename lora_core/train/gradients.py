"""Gradients in bounds, without a look at them from the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def clip(parameters: Iterable[nn.Parameter], norm: float) -> Tensor:
    """Scale all gradients by one factor, so that together they are not longer than ``norm``.

    Args:
        norm: the largest allowed; 0 for no limit.

    Returns:
        their length before, a float32 scalar on the device: ``finite`` of it says whether a step can be taken. 0
        where no parameter has a gradient.
    """
    # With an infinite limit the factor is 1, so the gradients keep their bits.
    return nn.utils.clip_grad_norm_(list(parameters), norm or float("inf"))


def finite(norm: Tensor) -> Tensor:
    """A boolean scalar on the device, True for gradients without NaN and infinity; ``norm``: of ``clip``."""
    return torch.isfinite(norm)


def norms(groups: Iterable[Sequence[nn.Parameter]]) -> Tensor:
    """(groups,) lengths of the gradients of each group of parameters, on the device; 0 for one without any."""
    return torch.stack([clip(parameters, 0).to(parameters[0].device) for parameters in groups])
