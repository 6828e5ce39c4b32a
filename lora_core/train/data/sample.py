"""A draw of one picture, and a batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..denoiser import Conditions


@dataclass(frozen=True, slots=True)
class View:
    """What part of a picture is seen, and how.

    Args:
        size: (width, height) in pixels of the result.
        resized: (width, height) that the whole picture is scaled to first.
        corner: (left, top) of the crop in the scaled picture.
        flip: mirrored after the crop.
        jitter: brightness, contrast and saturation factors; None for none.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    corner: tuple[int, int]
    flip: bool = False
    jitter: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One draw, everything about it decided.

    Args:
        position: place in the batch of the whole step, over all processes and passes. Its noise and timestep
            are functions of (seed, step, position).
        picture: index into the data's pictures.
        view: what part of it.
        caption: after dropout, shuffling, wildcards and trigger.
        weight: of its loss: the picture's own, times the prior's for pictures of the class.
        prior: whether it is a picture of the class (prior preservation).
    """

    position: int
    picture: int
    view: View
    caption: str
    weight: float = 1.0
    prior: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """The pictures of one pass, ready for the denoiser. Tensors are on the CPU, but for conditions that no cache holds.

    Args:
        samples: what was drawn, in the order of the rows.
        names: of the pictures, for messages.
        mean: (b, channels, height, width) float32, scaled latents.
        std: the same shape, or None.
        mask: (b, 1, height, width) float32, weight of each latent pixel, or None for all ones.
        conditions: of the captions, or None where the text encoders run in each step.
        sizes: (b, 6) float32, as ``Denoiser.predict`` takes them.
        weights: (b,) float32, weight of each picture's loss.
    """

    samples: Sequence[Sample]
    names: Sequence[str]
    mean: Tensor
    std: Tensor | None
    mask: Tensor | None
    conditions: Conditions | None
    sizes: Tensor
    weights: Tensor

    @property
    def captions(self) -> list[str]:
        return [sample.caption for sample in self.samples]

    @property
    def positions(self) -> list[int]:
        return [sample.position for sample in self.samples]
