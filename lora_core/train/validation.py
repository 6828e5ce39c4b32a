"""How well the adapter does on pictures that it was not trained on, with the same noise every time.

    validation   mean loss at fixed timesteps on held-out pictures, plain squared error without weights
    train        the same on a fixed few of the training pictures: the gap to validation shows overfitting
    leakage      mean squared change of the prediction on captions that have nothing to do with the training

The noise of a picture follows from the seed, the set and the place in it, so numbers of different steps and runs
can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from .config import ValidationSection
from .data import Batch, Sample
from .denoiser import Denoiser
from .moving import move
from .processes import Processes
from .seeds import generator


class Validation:
    """Fixed pictures, noise and timesteps.

    Args:
        section: what to measure.
        batches: name of a set -> its pictures, in passes of the run's batch size.
        disabled: a block in which the base predicts without the adapter.
    """

    def __init__(
        self,
        section: ValidationSection,
        denoiser: Denoiser,
        processes: Processes,
        seed: int,
        batches: Mapping[str, Callable[[], Sequence[Batch]]],
        disabled: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.section, self.denoiser, self.processes, self.seed = section, denoiser, processes, seed
        self._batches, self._disabled = batches, disabled

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """``{"validation": .., "validation t=0.2": .., "train": .., "leakage": ..}``; empty where nothing is set.

        Leakage needs a picture of any set, for the size of its latents.
        """
        result: dict[str, float] = {}
        first: Batch | None = None
        for name, make in self._batches.items():
            batches = make()
            if not batches:
                continue
            first = first or batches[0]
            values = [float(value) for value in self._losses(name, batches).mean(dim=1)]
            result[name] = sum(values) / len(values)
            for fraction, value in zip(self.section.timesteps, values, strict=True):
                result[f"{name} t={fraction:g}"] = value
        if self.section.prompts and first is not None:
            result["leakage"] = self._leakage(first)
        return result

    def _losses(self, name: str, batches: Sequence[Batch]) -> Tensor:
        """(timesteps, pictures) on the CPU."""
        columns: list[Tensor] = []
        for batch in batches:
            latents = move(batch.mean, self.processes.device)
            noise = self._noise(name, batch)
            rows = [self._one(batch, latents, noise, fraction) for fraction in self.section.timesteps]
            columns.append(torch.stack(rows))
        return torch.cat(columns, dim=1).cpu()

    def _one(self, batch: Batch, latents: Tensor, noise: Tensor, fraction: float) -> Tensor:
        """Squared error of each picture at one timestep, (b,)."""
        schedule = self.denoiser.schedule
        timesteps = schedule.timesteps(torch.full((len(latents),), fraction, device=latents.device))
        prediction = self._predict(batch, schedule.add_noise(latents, noise, timesteps), timesteps)
        error = (prediction.float() - schedule.target(latents, noise, timesteps).float()).square()
        return error.flatten(1).mean(dim=1)

    def _predict(self, batch: Batch, noisy: Tensor, timesteps: Tensor) -> Tensor:
        with self.processes.autocast():
            conditions = batch.conditions
            if conditions is None:
                conditions = self.denoiser.encode_text(batch.captions)
            return self.denoiser.predict(noisy, timesteps, conditions, batch.sizes)

    def _noise(self, name: str, batch: Batch) -> Tensor:
        """One draw a picture, so that the size of a pass changes no number."""
        shape = batch.mean.shape[1:]
        each = [torch.randn(shape, generator=generator(self.seed, "validation", name, p)) for p in batch.positions]
        return move(torch.stack(each), self.processes.device)

    def _leakage(self, first: Batch) -> float:
        """Mean over captions and timesteps of the squared change of the prediction, on noise alone."""
        device = self.processes.device
        noisy = torch.randn((1, *first.mean.shape[1:]), generator=generator(self.seed, "leakage")).to(device)
        sizes = first.sizes[:1]
        total = 0.0
        for prompt in self.section.prompts:
            for fraction in self.section.timesteps:
                timesteps = self.denoiser.schedule.timesteps(torch.tensor([fraction], device=device))

                def predict(prompt: str = prompt, timesteps: Tensor = timesteps) -> Tensor:
                    with self.processes.autocast():
                        return self.denoiser.predict(noisy, timesteps, self.denoiser.encode_text([prompt]), sizes)

                changed = predict()
                with self._disabled():
                    total += (changed.float() - predict().float()).square().mean().item()
        return total / (len(self.section.prompts) * len(self.section.timesteps))


def in_passes(samples: Sequence[Sample], size: int) -> list[list[Sample]]:
    """Samples in groups of one size of picture and at most ``size`` of them."""
    by_size: dict[tuple[int, int], list[Sample]] = {}
    for sample in samples:
        by_size.setdefault(sample.view.size, []).append(sample)
    return [group[i : i + size] for group in by_size.values() for i in range(0, len(group), size)]
