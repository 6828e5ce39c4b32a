"""One pass: a batch of pictures through noise, model and loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .config import DataSection, ObjectiveSection
from .data import Batch
from .denoiser import Conditions, Denoiser
from .moving import move
from .objective import draw, losses
from .processes import Processes


@dataclass(frozen=True, slots=True)
class Forward:
    """What all passes of a run share.

    ``total`` is the number of pictures of a whole step, over passes and processes.
    """

    denoiser: Denoiser
    objective: ObjectiveSection
    data: DataSection
    processes: Processes
    seed: int
    total: int

    def losses(self, batch: Batch, step: int) -> Tensor:
        """Loss of each picture, (b,) float32 on the device, weighted; nothing here waits for the device."""
        device = self.processes.device
        mean = move(batch.mean, device)
        std = None if batch.std is None else move(batch.std, device)
        drawn = draw(
            self.objective,
            self.denoiser.schedule,
            mean,
            std,
            seed=self.seed,
            step=step,
            positions=batch.positions,
            total=self.total,
            sample_latents=self.data.latents == "sample",
        )
        with self.processes.autocast():
            conditions = self.conditions(batch)
            prediction = self.denoiser.predict(drawn.noisy, drawn.timesteps, conditions, batch.sizes)
        mask = None if batch.mask is None else move(batch.mask, device)
        each = losses(self.objective, self.denoiser.schedule, prediction, drawn, mask)
        return each * move(batch.weights, device)

    def conditions(self, batch: Batch) -> Conditions:
        """From the cache, or from the text encoders, with gradients where they have parameters that want them."""
        if batch.conditions is None:
            return self.denoiser.encode_text(batch.captions)
        return batch.conditions
