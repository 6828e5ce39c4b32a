"""All that is random in a pass, drawn per picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import ObjectiveSection
from ..noise_schedule import NoiseSchedule
from ..seeds import generator
from .noise import noise_of, perturbation_of
from .timesteps import fractions


@dataclass(frozen=True, slots=True)
class Draw:
    """What a pass predicts, and from what.

    Args:
        latents: (b, channels, height, width), drawn from what the VAE made of the pictures.
        noise: the same shape, what epsilon predicts.
        timesteps: (b,), in the schedule's units.
        noisy: what the model sees.
        target: what it should predict.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    noisy: Tensor
    target: Tensor


def draw(
    section: ObjectiveSection,
    schedule: NoiseSchedule,
    mean: Tensor,
    std: Tensor | None,
    *,
    seed: int,
    step: int,
    positions: Sequence[int],
    total: int,
    sample_latents: bool = True,
) -> Draw:
    """Noise, timesteps and target of a pass.

    Each picture has its own random numbers, drawn on the CPU from (seed, step, position): they are the same on
    every device, in every split of a step into passes and processes, and after a resume.

    Args:
        mean, std: (b, channels, height, width) float32 of ``Latents``, on the device.
        positions: places of the pictures in the batch of the whole step.
        total: pictures of the whole step, over passes and processes.
        sample_latents: draw from the VAE's distribution; its mean otherwise.
    """
    shape, device = mean.shape[1:], mean.device
    latents = mean
    if std is not None and sample_latents:
        each = [torch.randn(shape, generator=generator(seed, "latents", step, position)) for position in positions]
        latents = mean + std * _together(each, device)
    each = [noise_of(section, shape, seed=seed, step=step, position=position) for position in positions]
    noise = _together(each, device)
    seen = noise
    if section.input_perturbation:
        each = [perturbation_of(section, shape, seed=seed, step=step, position=position) for position in positions]
        seen = noise + _together(each, device)
    parts = fractions(section, seed=seed, step=step, positions=positions, total=total)
    timesteps = _sent(schedule.timesteps(parts), device)
    return Draw(
        latents,
        noise,
        timesteps,
        schedule.add_noise(latents, seen, timesteps),
        schedule.target(latents, noise, timesteps),
    )


def _together(each: Sequence[Tensor], device: torch.device) -> Tensor:
    return _sent(torch.stack(list(each)), device)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device, without waiting for it: a copy from pinned memory runs beside what the device does."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
