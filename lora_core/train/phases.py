"""Which parts train at a step: embeddings first in pivotal tuning, text encoders up to a share of the run.

Parts that rest have ``requires_grad`` off, so no gradient is made for them and the optimizer leaves them alone: with
a learning rate of 0 its averages would still move.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..types import TEXT_ENCODERS
from .config import TrainConfig
from .network.group import Group

TOKENS = "tokens"


def trains(group: str, config: TrainConfig, step: int) -> bool:
    """Whether the parameters of a group (``"denoiser"``, ``"text_encoder up"``, ``"tokens"``) move at a step."""
    first = config.tokens.steps if config.tokens.names else 0
    if group == TOKENS:
        return step < first or first == 0 or config.tokens.keep_training
    if step < first:
        return False
    if group.split(" ")[0] in TEXT_ENCODERS:
        return step < first + config.text_encoder.until * (config.run.steps - first)
    return True


def set_phase(groups: Sequence[Group], config: TrainConfig, step: int) -> tuple[Group, ...]:
    """Switch gradients on for what trains at a step and off for the rest; returns the groups that train."""
    active: list[Group] = []
    for group in groups:
        wanted = trains(group.name, config, step)
        for parameter in group.parameters:
            parameter.requires_grad_(wanted)
        if wanted:
            active.append(group)
    return tuple(active)
