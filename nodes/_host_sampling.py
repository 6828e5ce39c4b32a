"""A picture drawn with a model that is being trained: the host's Euler sampler and its noise levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy import samplers
from comfy.k_diffusion import sampling
from torch import Tensor

# (noisy as the model takes it, what the model is told) -> what it gives back, for the prompt and for the negative one.
Ask = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


@torch.no_grad()
def draw(model_sampling: Any, noise: Tensor, steps: int, guidance: float, ask: Ask) -> Tensor:
    """Latents as the model knows them, (1, channels, ...).

    Args:
        model_sampling: the host's.
        noise: (1, channels, ...) on the device.
        steps: of the sampler.
        guidance: of classifier-free guidance; without a negative output it is not used.
        ask: the model.
    """
    scheduler = "simple" if hasattr(model_sampling, "shift") else "normal"  # of flows and of tables
    sigmas = samplers.calculate_sigmas(model_sampling, scheduler, steps).to(noise.device)

    def denoised(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        wanted, unwanted = ask(model_sampling.calculate_input(sigma, x), model_sampling.timestep(sigma).float())
        positive = model_sampling.calculate_denoised(sigma, wanted, x)
        if unwanted is None:
            return positive
        negative = model_sampling.calculate_denoised(sigma, unwanted, x)
        return negative + guidance * (positive - negative)

    x = model_sampling.noise_scaling(sigmas[0], noise.clone(), torch.zeros_like(noise), True)
    x = sampling.sample_euler(denoised, x, sigmas, disable=True)
    return model_sampling.inverse_noise_scaling(sigmas[-1], x)
