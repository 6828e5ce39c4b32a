"""The loss of each picture of a pass.

    l2          e^2                          e: prediction - target, element by element
    l1          |e|
    huber       2 d (sqrt(e^2 + d^2) - d)    pseudo-Huber: e^2 for small e, 2 d |e| for large
    smooth_l1   2 (sqrt(e^2 + d^2) - d)      the same over d: 2 |e| for large e

d is ``huber_delta``, the same everywhere or smaller where there is more noise (Khrapov et al. 2024): an outlier
among the training pictures then spoils details, but not the composition.

    constant      d
    exponential   d^level                    level: 0 clean, 1 noise
    snr           (1 - d) / (1 + sigma)^2 + d,    sigma = 1 / sqrt(snr)
"""

from __future__ import annotations

from torch import Tensor

from ..config import ObjectiveSection
from ..noise_schedule import NoiseSchedule
from .draws import Draw
from .weightings import weights_of


def losses(
    section: ObjectiveSection, schedule: NoiseSchedule, prediction: Tensor, draw: Draw, mask: Tensor | None
) -> Tensor:
    """Mean over a picture's elements, times the weight of its timestep.

    Args:
        prediction: (b, channels, height, width), any floating dtype.
        draw: what was drawn for the pass.
        mask: (b, 1, height, width), how much each place counts: the mean is over what counts, so a small subject
            is trained as strongly as a large one. A picture whose mask is 0 everywhere has loss 0.

    Returns:
        (b,) float32, on the device of the prediction.
    """
    each = _elements(section, schedule, prediction.float() - draw.target.float(), draw.timesteps)
    if mask is None:
        result = each.flatten(1).mean(dim=1)
    else:
        mask = mask.to(each.dtype).expand_as(each).flatten(1)
        result = (each.flatten(1) * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1e-8)
    weight = weights_of(section, schedule, draw.timesteps)
    return result if weight is None else result * weight


def _elements(section: ObjectiveSection, schedule: NoiseSchedule, error: Tensor, timesteps: Tensor) -> Tensor:
    if section.loss == "l2":
        return error.square()
    if section.loss == "l1":
        return error.abs()
    delta = _delta(section, schedule, timesteps)
    if isinstance(delta, Tensor):
        delta = delta.view(-1, *[1] * (error.dim() - 1))
    root = (error.square() + delta**2).sqrt() - delta
    return 2 * root * (delta if section.loss == "huber" else 1)


def _delta(section: ObjectiveSection, schedule: NoiseSchedule, timesteps: Tensor) -> Tensor | float:
    """Huber's delta, one number or (b,)."""
    delta = section.huber_delta
    if section.huber_schedule == "exponential":
        return delta ** schedule.levels(timesteps)
    if section.huber_schedule == "snr":
        sigma = schedule.snr(timesteps).rsqrt()
        return (1 - delta) / (1 + sigma).square() + delta
    return delta
