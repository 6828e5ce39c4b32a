"""Pictures drawn on the way, each moment with the same seeds and prompts."""

from __future__ import annotations

from PIL.Image import Image

from .config import TrainConfig
from .denoiser import Denoiser
from .events import Sampled, Watcher
from .images import to_image

STAGE = "drawing samples"


def draw_samples(denoiser: Denoiser, config: TrainConfig, step: int, watcher: Watcher) -> Sampled:
    """One picture a prompt; fewer where the watcher cancelled."""
    section = config.samples
    width, height = (
        _side(wanted or trained, denoiser.size_step)
        for wanted, trained in zip((section.width, section.height), config.data.resolution, strict=True)
    )
    pictures: list[Image] = []
    for number, prompt in enumerate(section.prompts):
        watcher.stage(STAGE, number, len(section.prompts))
        if watcher.cancelled():
            break
        pixels = denoiser.sample(
            prompt,
            section.negative,
            seed=section.seed + number,
            steps=section.steps,
            guidance=section.guidance,
            width=width,
            height=height,
        )
        pictures.append(to_image(pixels))
    watcher.stage(STAGE, len(section.prompts), len(section.prompts))
    return Sampled(step, section.prompts[: len(pictures)], pictures)


def _side(pixels: int, step: int) -> int:
    """The next smaller side that the model takes."""
    return max(step, pixels // step * step)
