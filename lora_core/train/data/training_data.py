"""``TrainingData``: the pictures of a run, what each step sees of them, and their batches.

data = TrainingData.open(config.data, config.validation, seed=0, size_step=8, latent_step=8)
data.prepare(denoiser, cache_folder, watcher, text=True)
samples = data.samples(step, count)              # the draw of the whole step, over passes and processes
batch = data.batch(step, samples[:4], denoiser)  # of one pass
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..conditions import joined
from ..config import DataSection, ValidationSection
from ..denoiser import Conditions, Denoiser
from ..events import Watcher
from .captions import drawn_caption, plain_caption
from .encoding import Encoding, encode
from .order import Order
from .picture import Picture
from .pixels import view_pixels
from .planning import Plan, plan
from .prefetch import Prefetch
from .preparing import prepare
from .reports import bucket_info, digest, tag_frequency
from .sample import Batch, Sample
from .views import Size, center_view, drawn_view, size_row


class TrainingData:
    """See the module. ``open`` makes one; ``notes`` are for the user, and ``prepare`` tells them to the watcher."""

    def __init__(self, rules: DataSection, plan: Plan, seed: int, latent_step: int) -> None:
        self.rules, self.plan, self.seed, self.latent_step = rules, plan, seed, latent_step
        self.text = True
        self.encoding = Encoding()
        self._order = Order(seed, plan.pictures_of, plan.priors_of)
        self._pixels: Prefetch[Sample, Tensor] = Prefetch(self._load, rules.workers)

    @classmethod
    def open(
        cls,
        data: DataSection,
        validation: ValidationSection,
        *,
        seed: int,
        size_step: int,
        latent_step: int,
        templates: Sequence[str] = (),
        words: Sequence[str] = (),
    ) -> TrainingData:
        """Find pictures and captions; nothing is decoded.

        Args:
            data, validation: the settings.
            seed: of the run.
            size_step: sides of pictures must be multiples of it.
            latent_step: pixels a latent.
            templates: captions for pictures that have none, of pivotal tuning.
            words: placeholder words, which captions must have.

        Raises:
            ConfigError: no pictures, no captions, sizes that the model cannot take.
            CorruptFileError: a file that cannot be read.
        """
        return cls(data, plan(data, validation, size_step, templates, words), seed, latent_step)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures; ``Sample.picture`` is an index into them."""
        return self.plan.pictures

    @property
    def notes(self) -> tuple[str, ...]:
        return self.plan.notes

    @property
    def epoch_size(self) -> int:
        """Pictures of an epoch, repeats counted, without those of the class."""
        return sum(len(indices) for indices in self.plan.pictures_of.values())

    @property
    def epoch_draws(self) -> int:
        """Draws until an epoch is through: with pictures of the class every second draw is one of them."""
        return self.epoch_size * (2 if self.plan.priors_of else 1)

    @property
    def held_out(self) -> tuple[Sample, ...]:
        """Pictures that are not trained on: the middle of each, captions as they are written."""
        return self._fixed(self.plan.held_out)

    @property
    def train_subset(self) -> tuple[Sample, ...]:
        """A fixed few of those that are trained on, the same way."""
        return self._fixed(self.plan.train_subset)

    @property
    def digest(self) -> str:
        """Of pictures, captions and the settings that draws depend on: a state is continued on the same data only."""
        return digest(self.pictures, self.rules, self.plan)

    def tag_frequency(self) -> dict[str, dict[str, int]]:
        held_out = set(self.plan.held_out)
        return tag_frequency([each for index, each in enumerate(self.pictures) if index not in held_out], self.rules)

    def bucket_info(self) -> dict[str, object]:
        return bucket_info(self.pictures, self.plan)

    def samples(self, step: int, count: int) -> list[Sample]:
        """The draw of a whole step: a function of (seed, step, count), all of one size."""
        size, drawn = self._order.draw(step, count)
        return [self._drawn(step, position, index, size) for position, index in enumerate(drawn)]

    def prepare(self, denoiser: Denoiser, cache_folder: Path | None, watcher: Watcher, *, text: bool) -> bool:
        """Fill the caches; False where the watcher cancelled.

        Args:
            denoiser: encodes what is not in the caches yet.
            cache_folder: where entries are kept for other runs; None keeps them in memory.
            watcher: sees the progress, warnings and notes.
            text: whether conditions are part of batches: the text encoders are not trained.

        Raises:
            LatentsError: the VAE makes nothing usable of a picture.
        """
        self.text = text
        for note in self.notes:
            watcher.warned(note)
        self.encoding.keep_in(cache_folder, watcher, latents=self.rules.cache_latents, text=self.rules.cache_text)
        return prepare(self.plan, self.rules, self.encoding, denoiser, watcher, text=text)

    def prefetch(self, samples: Sequence[Sample]) -> None:
        """Begin to read the pictures of a later step, where they are decoded in each.

        Args:
            samples: all that this process draws in that step, over its passes; those of four steps are kept at most.
        """
        if not self.latents_are_kept:
            self._pixels.ask(samples)

    @property
    def latents_are_kept(self) -> bool:
        """Whether all views can be in the cache, so that steps need no VAE once ``prepare`` is done."""
        return self.plan.views_are_few and self.rules.cache_latents

    @property
    def text_is_kept(self) -> bool:
        """Whether all captions can be in the cache, so that steps need no text encoder."""
        return self.text and self.plan.captions_are_few and self.rules.cache_text

    def batch(self, step: int, samples: Sequence[Sample], denoiser: Denoiser) -> Batch:
        """Latents, conditions, masks and sizes of samples of one size."""
        pictures = [self.pictures[sample.picture] for sample in samples]
        names = [picture.name for picture in pictures]
        if self.latents_are_kept:
            kept = [
                self.encoding.latents_of(picture, sample.view, denoiser)
                for picture, sample in zip(pictures, samples, strict=True)
            ]
            mean = torch.stack([entry["mean"] for entry in kept])
            std = torch.stack([entry["std"] for entry in kept]) if "std" in kept[0] else None
        else:
            latents = encode(names, torch.stack([self._pixels.take(sample) for sample in samples]), denoiser)
            mean, std = latents.mean, latents.std
        return Batch(
            samples,
            names,
            mean,
            std,
            self._mask(samples, mean),
            self._conditions([sample.caption for sample in samples], denoiser) if self.text else None,
            torch.tensor([size_row(picture, s.view) for picture, s in zip(pictures, samples, strict=True)]),
            torch.tensor([sample.weight for sample in samples]),
        )

    def close(self) -> None:
        """End the threads."""
        self._pixels.close()

    def _drawn(self, step: int, position: int, index: int, size: Size) -> Sample:
        picture, rules, seed = self.pictures[index], self.rules, self.seed
        view = drawn_view(picture, size, rules, seed, step, position)
        caption = drawn_caption(picture.captions, rules, seed, step, position, prior=picture.prior)
        return Sample(position, index, view, caption, picture.weight, picture.prior)

    def _fixed(self, indices: Sequence[int]) -> tuple[Sample, ...]:
        pictures = [self.pictures[index] for index in indices]
        return tuple(
            Sample(
                position,
                index,
                center_view(picture, self.plan.size_of[index]),
                plain_caption(picture.captions, self.rules, prior=picture.prior),
            )
            for position, (index, picture) in enumerate(zip(indices, pictures, strict=True))
        )

    def _load(self, sample: Sample) -> Tensor:
        return view_pixels(self.pictures[sample.picture], sample.view)

    def _conditions(self, captions: Sequence[str], denoiser: Denoiser) -> Conditions:
        if not self.text_is_kept:
            with torch.no_grad():  # left where it is made: a copy to the CPU would wait for the device in each step
                return denoiser.encode_text(captions)
        return joined([self.encoding.text_of(caption, denoiser) for caption in captions])

    def _mask(self, samples: Sequence[Sample], mean: Tensor) -> Tensor | None:
        if self.rules.masks == "none":
            return None
        rows: list[Tensor] = []
        for sample in samples:
            picture = self.pictures[sample.picture]
            mask = None if picture.prior else self.encoding.mask_of(picture, sample.view, self.rules, self.latent_step)
            rows.append(torch.ones(1, *mean.shape[2:]) if mask is None else mask)
        return torch.stack(rows)
