"""Where in the schedule a picture is trained: 0 clean, 1 noise.

Each way of drawing is a map of one number u, uniform in (0, 1), so that a timestep costs no random state, and a
stratified draw is the same maps fed with evenly spread u.

    uniform        u
    stratified     (stratum + u) / pictures of the step: one in each part, so the mean loss of a step varies less
    logit_normal   sigmoid(mean + std z), z = the normal quantile of u        Esser et al. 2024, section 3.1
    sigmoid        logit_normal with mean 0
    mode           1 - u - 1.29 (cos(pi u / 2)^2 - 1 + u)                     Esser et al. 2024, equation 20
    shift          shift u / (1 + (shift - 1) u)                              Esser et al. 2024, equation 23
    cubic          1 - u^3, mostly noise                                      Mou et al. 2023 (T2I-Adapter)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from types import MappingProxyType

import torch
from torch import Tensor

from ..config import ObjectiveSection
from ..seeds import fraction, number

# Strength of `mode` that its paper and diffusers' training scripts use.
MODE_SCALE = 1.29
# The normal quantile is infinite at 0 and at 1; u keeps this far away from both.
EDGE = 2**-53
NORMAL = NormalDist()


def _same(u: float, section: ObjectiveSection) -> float:
    return u


def _logit_normal(u: float, section: ObjectiveSection) -> float:
    return _sigmoid(section.timestep_mean + section.timestep_std * _normal(u))


def _sigmoid_normal(u: float, section: ObjectiveSection) -> float:
    return _sigmoid(section.timestep_std * _normal(u))


def _mode(u: float, section: ObjectiveSection) -> float:
    return 1 - u - MODE_SCALE * (math.cos(math.pi / 2 * u) ** 2 - 1 + u)


def _shift(u: float, section: ObjectiveSection) -> float:
    return section.shift * u / (1 + (section.shift - 1) * u)


def _cubic(u: float, section: ObjectiveSection) -> float:
    return 1 - u**3


TIMESTEPS: Mapping[str, Callable[[float, ObjectiveSection], float]] = MappingProxyType(
    {
        "uniform": _same,
        "stratified": _same,
        "logit_normal": _logit_normal,
        "mode": _mode,
        "sigmoid": _sigmoid_normal,
        "shift": _shift,
        "cubic": _cubic,
    }
)


def fractions(section: ObjectiveSection, *, seed: int, step: int, positions: Sequence[int], total: int) -> Tensor:
    """Timesteps of a pass as parts of the schedule.

    Args:
        positions: places of the pass's pictures in the batch of the whole step.
        total: pictures of the whole step, over passes and processes.

    Returns:
        (b,) float32 on the CPU, in ``section.timestep_range``.
    """
    low, high = section.timestep_range
    way = TIMESTEPS[section.timesteps]
    values: list[float] = []
    for position in positions:
        u = fraction(seed, "timestep", step, position)
        if section.timesteps == "stratified":
            # Turned by a step's own number, or the first picture of each step would always see little noise.
            u = ((position + number(seed, "stratum", step)) % total + u) / total
        values.append(low + (high - low) * min(max(way(u, section), 0.0), 1.0))
    return torch.tensor(values, dtype=torch.float32)


def _normal(u: float) -> float:
    return NORMAL.inv_cdf(min(max(u, EDGE), 1 - EDGE))


def _sigmoid(x: float) -> float:
    # Of the side that cannot overflow.
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
