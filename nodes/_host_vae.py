"""Pictures <-> latents in the scale that the host's model works on, through the graph's VAE."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from comfy.ldm.models import autoencoder
from torch import Tensor, nn

from ..lora_core.errors import ConfigError
from ..lora_core.train.denoiser import Latents
from ._host_cancel import cancellable


class _Moments(nn.Module):
    """In the place of what makes latents of a distribution: the distribution's mean and log variance as they are."""

    def forward(self, moments: Tensor) -> tuple[Tensor, None]:
        return moments, None


def check_vae(vae: Any, latent_format: Any) -> None:
    """Raise ConfigError where VAE and MODEL do not belong together."""
    vae.throw_exception_if_invalid()
    makes, takes = getattr(vae, "latent_channels", None), latent_format.latent_channels
    if makes is not None and makes != takes:
        fault = f"makes latents of {makes} channels, and the MODEL takes {takes}"
        raise ConfigError("VAE", [f"{fault}: connect the VAE of this model"])


def pixels_a_latent(vae: Any) -> int:
    return int(vae.spacial_compression_encode())  # the host's spelling


def encode(vae: Any, latent_format: Any, pixels: Tensor) -> Latents:
    """(b, 3, h, w) in [-1, 1] -> latents, float32 on the CPU; one at a time, as VAEs of films take several for a film.

    The host gives the middle of the VAE's distribution; its width is kept too, where there is one.
    """
    means: list[Tensor] = []
    stds: list[Tensor] = []
    for picture in pixels.cpu():
        with torch.inference_mode(), cancellable():
            mean, log_variance = _encoded(vae, ((picture + 1) / 2).movedim(0, -1)[None])
            if log_variance is not None:
                stds.append(_flat(_scale(latent_format, mean) * torch.exp(0.5 * log_variance.clamp(-30, 20))))
            means.append(_flat(latent_format.process_in(mean)))
    mean = torch.cat([one.clone() for one in means]).cpu()
    return Latents(mean, torch.cat([one.clone() for one in stds]).cpu() if len(stds) == len(means) else None)


def _encoded(vae: Any, picture: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean and log variance of the VAE's distribution, None where it tells its middle alone.

    With too little memory the host encodes tiles, whose channels it knows beforehand: then the middle is all there is,
    and the distribution has no width, so that pictures of one run have the same parts.
    """
    try:
        with _moments(vae) as has_moments:
            made = vae.encode(picture).float()
        if not has_moments:
            return made, None
        mean, log_variance = made.chunk(2, dim=1)
        return mean, log_variance
    except RuntimeError:  # what is wrong otherwise is so again
        mean = vae.encode(picture).float()
        return mean, torch.full_like(mean, -math.inf)


def decode(vae: Any, latent_format: Any, latents: Tensor) -> Tensor:
    """(1, channels, ...) -> (3, height, width) in [0, 1] on the CPU."""
    with torch.inference_mode(), cancellable():
        pixels = vae.decode(latent_format.process_out(latents))
        pixels = pixels.reshape(-1, *pixels.shape[-3:])[0]
    return pixels.clone().movedim(-1, 0).float().clamp(0, 1).cpu()


@contextmanager
def _moments(vae: Any) -> Iterator[bool]:
    """A block in which the VAE gives mean and log variance; the value says whether it does."""
    stage = vae.first_stage_model
    regularization = getattr(stage, "regularization", None)
    regroups = getattr(stage, "bn", None) is not None  # FLUX.2's normalises what comes out, by channel
    if regroups or not isinstance(regularization, autoencoder.DiagonalGaussianRegularizer):
        yield False
        return
    stage.regularization = _Moments()
    try:
        yield True
    finally:
        stage.regularization = regularization


def _scale(latent_format: Any, like: Tensor) -> Tensor:
    """What the latent format multiplies with; it may add something too."""
    return latent_format.process_in(torch.ones_like(like)) - latent_format.process_in(torch.zeros_like(like))


def _flat(latents: Tensor) -> Tensor:
    """Latents of one picture from a VAE of films, (1, channels, 1, h, w) -> (1, channels, h, w)."""
    return latents.squeeze(2) if latents.dim() == 5 else latents
