"""How much a timestep counts, from its signal-to-noise ratio.

A weight of the loss in the picture, w(snr) |x - x'|^2, is a weight of the loss in what is predicted, since an error
of the prediction is an error of the picture:

    epsilon   |x - x'|^2 = |n - n'|^2 / snr
    v         |x - x'|^2 = |v - v'|^2 / (snr + 1)
    flow      |x - x'|^2 = |u - u'|^2 / (1 + sqrt(snr))^2        = s^2 |u - u'|^2, snr = ((1 - s) / s)^2

    min_snr        w = min(snr, gamma)                  Hang et al. 2023
    soft_min_snr   w = snr gamma / (snr + gamma)        Crowson et al. 2024, the same without a kink
    debiased       epsilon 1 / sqrt(snr)                Yu et al. 2024
                   v 1 / (snr + 1), flow s^2            w = 1, as trainers in use have it for v
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ..config import ObjectiveSection
from ..noise_schedule import NoiseSchedule, Prediction

Weighting = Callable[[Tensor, Prediction, float], Tensor]

# SD's snr ends at 0.0047. An epsilon model with an snr of 0 gets this one, so that no weight is infinite.
LEAST_SNR = 1e-6


def min_snr(snr: Tensor, prediction: Prediction, gamma: float) -> Tensor:
    """(b,) snr -> (b,) weights of the loss in what is predicted."""
    if prediction == "epsilon":
        # min(snr, gamma) / snr, written so that an snr of 0 gives its limit 1.
        return (gamma / snr).clamp_max(1)
    return snr.clamp_max(gamma) * _of_picture(snr, prediction)


def soft_min_snr(snr: Tensor, prediction: Prediction, gamma: float) -> Tensor:
    """(b,) snr -> (b,) weights of the loss in what is predicted."""
    if prediction == "epsilon":
        return gamma / (snr + gamma)
    return gamma / (1 + gamma / snr) * _of_picture(snr, prediction)


def debiased(snr: Tensor, prediction: Prediction, gamma: float) -> Tensor:
    """(b,) snr -> (b,) weights of the loss in what is predicted."""
    if prediction == "epsilon":
        return snr.clamp_min(LEAST_SNR).rsqrt()
    return _of_picture(snr, prediction)


WEIGHTINGS: Mapping[str, Weighting] = MappingProxyType(
    {"min_snr": min_snr, "soft_min_snr": soft_min_snr, "debiased": debiased}
)


def weights_of(section: ObjectiveSection, schedule: NoiseSchedule, timesteps: Tensor) -> Tensor | None:
    """(b,) float32 weights of a pass; None where all timesteps count the same."""
    if section.weighting == "none":
        return None
    # Capped, since a clean picture (flow's 0) has an infinite snr: the weights are at their limits long before.
    snr = schedule.snr(timesteps).clamp_max(torch.finfo(torch.float32).max ** 0.5)
    return WEIGHTINGS[section.weighting](snr, schedule.prediction, section.gamma)


def _of_picture(snr: Tensor, prediction: Prediction) -> Tensor:
    """Squared error of the picture for a squared error of 1 in v or flow."""
    return 1 / (snr + 1) if prediction == "v" else 1 / (1 + snr.sqrt()).square()
