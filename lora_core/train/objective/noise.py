"""The noise of one picture.

plain                n ~ N(0, 1)
multi-resolution     n + d up(n1) + d^2 up(n2) + ..., each coarser by a factor drawn in [2, 4), over its standard
                     deviation: low frequencies of a picture are changed too, which plain noise hardly does
                     (Whitaker 2023, "Multi-Resolution Noise for Diffusion Model Training")
offset               n + offset c, c ~ N(0, 1), one number a channel (Guttenberg 2023, "Diffusion with Offset
                     Noise"): makes very dark and very bright pictures possible
input perturbation   the model sees n + p m, m ~ N(0, 1), while n stays the target (Ning et al. 2023)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..config import ObjectiveSection
from ..seeds import fraction, generator


def noise_of(section: ObjectiveSection, shape: Sequence[int], *, seed: int, step: int, position: int) -> Tensor:
    """What is added to the latents of one picture, and what epsilon predicts.

    Args:
        shape: (channels, ..., height, width) of its latents.

    Returns:
        float32 on the CPU, in that shape.
    """
    noise = torch.randn(tuple(shape), generator=generator(seed, "noise", step, position))
    if section.multires_noise:
        noise = _with_pyramid(noise, section, seed, step, position)
    if section.noise_offset:
        strength = section.noise_offset
        if section.noise_offset_random:
            strength *= fraction(seed, "offset strength", step, position)
        channels = torch.randn(shape[0], generator=generator(seed, "offset", step, position))
        noise += strength * channels.view(-1, *[1] * (len(shape) - 1))
    return noise


def perturbation_of(section: ObjectiveSection, shape: Sequence[int], *, seed: int, step: int, position: int) -> Tensor:
    """What input perturbation adds to the noise that the model sees: float32 on the CPU, in ``shape``."""
    random = generator(seed, "perturbation", step, position)
    return section.input_perturbation * torch.randn(tuple(shape), generator=random)


def _with_pyramid(noise: Tensor, section: ObjectiveSection, seed: int, step: int, position: int) -> Tensor:
    """Coarser and coarser noise on top, until a level is one pixel wide; standard deviation 1 again."""
    random = generator(seed, "pyramid", step, position)
    height, width = noise.shape[-2:]
    # Frames of a video, where there are any, count as channels: the pyramid is in the picture's plane.
    flat = noise.reshape(1, -1, height, width)
    for level in range(1, section.multires_noise + 1):
        factor = (2 + 2 * torch.rand(1, generator=random).item()) ** level
        size = (max(1, int(height / factor)), max(1, int(width / factor)))
        coarse = torch.randn((1, flat.shape[1], *size), generator=random)
        flat = flat + section.multires_discount**level * interpolate(coarse, (height, width), mode="bilinear")
        if 1 in size:
            break
    return (flat / flat.std()).view(noise.shape)
