"""Parameters that move at one rate."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, slots=True)
class Group:
    """What an optimizer gets.

    Args:
        name: for curves and messages: a component, ``"denoiser"``; with LoRA+ also ``"denoiser up"``.
        parameters: in the order of the modules.
        learning_rate: at the top of the schedule.
    """

    name: str
    parameters: list[nn.Parameter]
    learning_rate: float
