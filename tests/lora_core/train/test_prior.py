"""Pictures of the class: drawn until there are enough, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from lora_core.errors import ConfigError
from lora_core.train.config import DataSection, PriorSection
from lora_core.train.events import Watcher
from lora_core.train.images import to_image
from lora_core.train.prior import generate_prior


class Draws:
    """A denoiser that draws one colour a seed, and remembers what it was asked."""

    size_step = 8

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []

    def sample(self, prompt: str, negative: str, **settings: object) -> Tensor:
        self.asked.append({"prompt": prompt, "negative": negative, **settings})
        seed, width, height = (int(str(settings[name])) for name in ("seed", "width", "height"))
        return torch.full((3, height, width), seed % 251 / 250)


class StopsAfter(Watcher):
    def __init__(self, pictures: int) -> None:
        self.left = pictures

    def cancelled(self) -> bool:
        self.left -= 1
        return self.left < 0


def section(folder: Path, generate: int = 3) -> DataSection:
    prior = PriorSection(folder=str(folder), caption="a shape", generate=generate)
    return DataSection(folder="pictures", resolution=(20, 64), prior=prior)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names(folder)]


def test_pictures_of_the_caption_in_the_size_of_training(tmp_path: Path):
    denoiser = Draws()

    made = generate_prior(denoiser, section(tmp_path / "class"), 1, Watcher())  # pyright: ignore[reportArgumentType]

    assert [path.name for path in made] == ["prior-00000.png", "prior-00001.png", "prior-00002.png"]
    assert {(one["prompt"], one["width"], one["height"]) for one in denoiser.asked} == {("a shape", 16, 64)}
    assert Image.open(made[0]).size == (16, 64)
    assert len(set(contents(tmp_path / "class"))) == 3


def test_pictures_that_are_there_count(tmp_path: Path):
    to_image(torch.zeros(3, 8, 8)).save(tmp_path / "mine.jpg")
    (tmp_path / "notes.txt").write_text("no picture")

    made = generate_prior(Draws(), section(tmp_path), 1, Watcher())  # pyright: ignore[reportArgumentType]

    assert len(made) == 2


def test_nothing_is_drawn_where_there_are_enough(tmp_path: Path):
    generate_prior(Draws(), section(tmp_path), 1, Watcher())  # pyright: ignore[reportArgumentType]

    assert generate_prior(Draws(), section(tmp_path), 1, Watcher()) == []  # pyright: ignore[reportArgumentType]


def test_an_interrupted_row_goes_on_with_the_same_pictures(tmp_path: Path):
    generate_prior(Draws(), section(tmp_path / "whole"), 1, Watcher())  # pyright: ignore[reportArgumentType]

    for _ in range(2):
        generate_prior(Draws(), section(tmp_path / "parts"), 1, StopsAfter(2))  # pyright: ignore[reportArgumentType]

    assert names(tmp_path / "parts") == names(tmp_path / "whole")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_folder_and_caption_are_needed():
    with pytest.raises(ConfigError, match=r"folder is empty.*caption is empty"):
        generate_prior(Draws(), DataSection(prior=PriorSection(generate=1)), 1, Watcher())  # pyright: ignore[reportArgumentType]


def test_colours_are_rounded_to_the_nearest_level():
    picture = torch.tensor([0.0, 0.5, 1.2]).view(3, 1, 1)

    assert to_image(picture).getpixel((0, 0)) == (0, 128, 255)
