"""Pictures <-> the latents that the UNet works on, ``(vae - shift) * scale``.

Always in float32 and outside autocast: SDXL's VAE overflows in fp16, and its work is done once where latents are
cached.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..denoiser import Latents

# Of the pictures that are encoded at once; the memory for it grows with them.
PIXELS_AT_ONCE = 2 * 1024 * 1024


def encode(vae: Any, pixels: Tensor) -> Latents:
    """(b, 3, h, w) in [-1, 1], on the VAE's device -> mean and deviation, (b, channels, h / step, w / step)."""
    rows = max(1, PIXELS_AT_ONCE // (pixels.shape[-1] * pixels.shape[-2]))
    with torch.autocast(pixels.device.type, enabled=False):
        found: list[Any] = [vae.encode(some).latent_dist for some in torch.split(pixels.float(), rows)]
    mean, std = (torch.cat([getattr(one, name) for one in found]) for name in ("mean", "std"))
    shift, scale = _shift_and_scale(vae, mean)
    return Latents((mean - shift) * scale, std * scale)


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Latents on the VAE's device -> (b, 3, height, width) in [-1, 1], about."""
    shift, scale = _shift_and_scale(vae, latents)
    with torch.autocast(latents.device.type, enabled=False):
        return vae.decode(latents.float() / scale + shift, return_dict=False)[0]


def _shift_and_scale(vae: Any, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """One for all channels, or per channel where the VAE's settings say so."""
    config = vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or std is None:
        return getattr(config, "shift_factor", None) or 0.0, config.scaling_factor
    shift, spread = (torch.tensor(values, device=like.device).view(1, -1, 1, 1) for values in (mean, std))
    return shift, config.scaling_factor / spread
