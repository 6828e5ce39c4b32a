"""Noise and targets of the demo's diffusion: SD's schedule, v-prediction, min-SNR weights.

x_t = a_t x_0 + s_t e,  v_t = a_t e - s_t x_0,  a_t^2 = cumulative product of (1 - beta),  a^2 + s^2 = 1
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def alphas_cumprod() -> Tensor:
    """a_t^2 for t = 0..999 of SD's "scaled linear" schedule, (1000,)."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, dim=0).float()


def signal_and_noise(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """(a_t, s_t) with three trailing axes, (n, 1, 1, 1) each."""
    squared = alphas_cumprod()[timesteps].view(-1, 1, 1, 1)
    return squared.sqrt(), (1.0 - squared).sqrt()


def add_noise(clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    signal, sigma = signal_and_noise(timesteps)
    return signal * clean + sigma * noise


def velocity(clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """The v target."""
    signal, sigma = signal_and_noise(timesteps)
    return signal * noise - sigma * clean


def min_snr_weights(timesteps: Tensor, gamma: float = 5.0) -> Tensor:
    """min(snr, gamma) / (snr + 1) for a v target, (n,); gamma caps the easy, nearly clean steps."""
    squared = alphas_cumprod()[timesteps]
    snr = squared / (1.0 - squared)
    return snr.clamp(max=gamma) / (snr + 1.0)


def stratified_timesteps(count: int) -> Tensor:
    """One random timestep from each of `count` equal parts of 0..999: less noise in the loss."""
    return ((torch.arange(count) + torch.rand(count)) * (STEPS / count)).long().clamp(max=STEPS - 1)
