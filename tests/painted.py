"""Pictures to train on, made of numbers, and a denoiser that makes latents of them by arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lora_core.train.config import DataSection, ValidationSection
from lora_core.train.data import TrainingData
from lora_core.train.denoiser import Latents
from lora_core.train.events import Watcher
from lora_core.train.seeds import generator


def noise(size: tuple[int, int], seed: int = 0, channels: int = 3) -> Image.Image:
    """A picture of random colours, blocks of 4 pixels, always the same for a seed."""
    shape = (channels, -(-size[1] // 4), -(-size[0] // 4))
    blocks = torch.randint(0, 256, shape, generator=generator(seed, "noise"), dtype=torch.uint8)
    pixels = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, : size[1], : size[0]]
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def paint(path: Path, size: tuple[int, int] = (64, 64), seed: int = 0, caption: str | None = None) -> Path:
    """A PNG file, and a text file with its caption beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(size, seed).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, "utf-8")
    return path


def paint_some(folder: Path, count: int, size: tuple[int, int] = (64, 64)) -> Path:
    """Pictures p0.png, p1.png, ... with the captions `thing 0`, `thing 1`, ..."""
    for number in range(count):
        paint(folder / f"p{number}.png", size, number, f"thing {number}")
    return folder


def open_data(folder: Path, *, seed: int = 0, templates: Sequence[str] = (), **settings: Any) -> TrainingData:
    """Data at 64 px in one size, unless the settings say otherwise; ``validation`` is that section."""
    validation = ValidationSection(**settings.pop("validation", {}))
    section = DataSection(**{"folder": str(folder), "resolution": 64, "buckets": False, **settings})
    return TrainingData.open(section, validation, seed=seed, size_step=8, latent_step=8, templates=templates)


class Arithmetic:
    """What data needs of a denoiser: latents are means of 8x8 pixels, conditions are letters.

    ``pictures`` and ``captions`` count what was encoded; ``spoil`` changes latents before they are returned.
    """

    vae_fingerprint = "mean of pixels"
    text_fingerprint = "letters"

    def __init__(self) -> None:
        self.pictures = 0
        self.captions: list[str] = []
        self.spoil = 1.0

    def set_mode(self, mode: str) -> None:
        pass

    def encode_pictures(self, pixels: Tensor) -> Latents:
        self.pictures += len(pixels)
        mean = torch.nn.functional.avg_pool2d(pixels, 8) * self.spoil
        return Latents(mean, torch.full_like(mean, 0.5))

    def encode_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        self.captions += captions
        rows = [list(caption.encode().ljust(16)[:16]) for caption in captions]
        return {"text": torch.tensor(rows, dtype=torch.float32)[..., None]}


class Told(Watcher):
    """Remembers what it is told; cancels after so many answers."""

    def __init__(self, cancel_after: int | None = None) -> None:
        self.warnings: list[str] = []
        self.stages: list[tuple[str, int, int]] = []
        self.left = cancel_after

    def warned(self, message: str) -> None:
        self.warnings.append(message)

    def stage(self, what: str, done: int, total: int) -> None:
        self.stages.append((what, done, total))

    def cancelled(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        return self.left < 0
