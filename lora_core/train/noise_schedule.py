"""Noise schedules: how a picture becomes noise, and what the model is to predict.

    discrete:  x_t = sqrt(abar_t) x + sqrt(1 - abar_t) n    epsilon -> n,   v -> sqrt(abar_t) n - sqrt(1 - abar_t) x
    flow:      x_t = (1 - s) x + s n                         flow -> n - x

x: latents, n: noise, t: timestep. SNR is the signal's power over the noise's. Sources: Ho et al. 2020 (epsilon),
Salimans and Ho 2022 (v), Lipman et al. 2023 and Liu et al. 2023 (flow).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v", "flow"]


class NoiseSchedule(Protocol):
    """What the objective needs to know of a model's noise. Timesteps are tensors (b,) on the latents' device."""

    @property
    def prediction(self) -> Prediction: ...

    def timesteps(self, fractions: Tensor) -> Tensor:
        """Fractions in [0, 1), 0 clean and 1 noise, (b,) float32 -> timesteps that ``predict`` understands."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...

    def snr(self, timesteps: Tensor) -> Tensor:
        """(b,) float32, may be 0 at the end of a schedule with zero terminal SNR, and infinite at the start."""
        ...

    def levels(self, timesteps: Tensor) -> Tensor:
        """(b,) float32 in [0, 1], 0 clean and 1 noise: the timestep as a part of all, flow's sigma."""
        ...


@dataclass(frozen=True)
class DiscreteSchedule:
    """A table of ``abar``, (steps,) float32 falling from nearly 1; SD's has 1,000."""

    abar: Tensor
    prediction: Prediction = "epsilon"

    def timesteps(self, fractions: Tensor) -> Tensor:
        count = len(self.abar)
        return (fractions * count).long().clamp_(0, count - 1)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        signal, rest = self._scales(latents, timesteps)
        return signal * latents + rest * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return noise
        signal, rest = self._scales(latents, timesteps)
        return signal * noise - rest * latents

    def snr(self, timesteps: Tensor) -> Tensor:
        abar = self._abar(timesteps)
        return abar / (1 - abar)

    def levels(self, timesteps: Tensor) -> Tensor:
        return timesteps.float() / len(self.abar)

    def _abar(self, timesteps: Tensor) -> Tensor:
        table = self.abar
        if table.device != timesteps.device:
            table = table.to(timesteps.device)
            object.__setattr__(self, "abar", table)  # moved once, or each step would copy it
        return table[timesteps]

    def _scales(self, like: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        abar = self._abar(timesteps).view(-1, *[1] * (like.dim() - 1))
        return abar.sqrt().to(like.dtype), (1 - abar).sqrt().to(like.dtype)


@dataclass(frozen=True)
class FlowSchedule:
    """Straight lines between picture and noise; ``timesteps`` are sigma times ``multiplier`` (1000 in SD 3, FLUX).

    ``noise_scale``: the noise is so many times louder, for models that work on pixels (8 in HiDream-O1).
    """

    shift: float = 1.0
    multiplier: float = 1000.0
    prediction: Prediction = "flow"
    noise_scale: float = 1.0

    def timesteps(self, fractions: Tensor) -> Tensor:
        sigma = self.shift * fractions / (1 + (self.shift - 1) * fractions)
        return sigma * self.multiplier

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        sigma = self._sigma(latents, timesteps)
        return (1 - sigma) * latents + sigma * self._scaled(noise)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self._scaled(noise) - latents

    def snr(self, timesteps: Tensor) -> Tensor:
        sigma = timesteps.float() / self.multiplier
        return ((1 - sigma) / (self.noise_scale * sigma).clamp_min(torch.finfo(torch.float32).tiny)).square()

    def levels(self, timesteps: Tensor) -> Tensor:
        return timesteps.float() / self.multiplier

    def _scaled(self, noise: Tensor) -> Tensor:
        return noise if self.noise_scale == 1 else self.noise_scale * noise

    def _sigma(self, like: Tensor, timesteps: Tensor) -> Tensor:
        return (timesteps / self.multiplier).to(like.dtype).view(-1, *[1] * (like.dim() - 1))
