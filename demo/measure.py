"""The demo's checks as numbers: losses with fixed noise, and what colours samples have."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from demo.dataset import Item, load_images
from demo.pipeline import Demo, noise_schedule

TIMESTEPS = (200, 400, 600, 800)
DARK = 0.25


@torch.no_grad()
def fixed_losses(
    demo: Demo, latents: Tensor, captions: list[str], *, draws: int = 2, seed: int = 0
) -> dict[str, float]:
    """Mean square error of v at fixed timesteps, {"200": ..., ..., "mean": ...}.

    latents (n, 16, 8, 8). The noise depends on seed, timestep and place only, so two models (or two
    orders of the captions) are compared on the very same noisy pictures.
    """
    context, schedule = demo.context(captions), noise_schedule()
    losses: dict[str, float] = {}
    for t in TIMESTEPS:
        generator = torch.Generator().manual_seed(seed * 10_000 + t)
        timesteps = torch.full((len(latents),), t)
        total = 0.0
        for _ in range(draws):
            noise = torch.randn(latents.shape, generator=generator)
            noisy = schedule.add_noise(latents, noise, timesteps)
            output = demo.unet(noisy, t, context).sample
            total += F.mse_loss(output, schedule.target(latents, noise, timesteps)).item()
        losses[str(t)] = total / draws
    losses["mean"] = sum(losses.values()) / len(TIMESTEPS)
    return losses


def shuffled(captions: Sequence[str]) -> list[str]:
    """Every caption moved on by half the list: nobody keeps their own."""
    half = len(captions) // 2
    return [*captions[half:], *captions[:half]]


def pairs(demo: Demo, items: Sequence[Item]) -> tuple[Tensor, list[str]]:
    """Latents and captions of items."""
    return demo.encode(load_images(items)), [item.text for item in items]


def small(images: Tensor) -> Tensor:
    """(n, 3, h, w) in [-1, 1] -> (n, 3, 32, 32) in [0, 1]."""
    return (F.adaptive_avg_pool2d(images, 32) + 1.0) / 2.0


def dark_fraction(images: Tensor) -> float:
    """Share of pixels whose brightest channel is below a quarter, at 32x32."""
    return (small(images).amax(dim=1) < DARK).float().mean().item()


def saturation(images: Tensor) -> float:
    """Mean of (max - min) / max over the channels, 0 for black, at 32x32."""
    pixels = small(images)
    high, low = pixels.amax(dim=1), pixels.amin(dim=1)
    return torch.where(high > 0, (high - low) / high.clamp(min=1e-6), high).mean().item()


def rises(values: Sequence[float]) -> bool:
    """Every value is larger than the one before."""
    return all(a < b for a, b in itertools.pairwise(values))
