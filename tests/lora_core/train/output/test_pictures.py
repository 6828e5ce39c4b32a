"""Samples, their sheet, and the small picture in the metadata."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from lora_core.metadata import read_metadata
from lora_core.train.events import Sampled
from lora_core.train.output import RunFolder
from lora_core.train.output.pictures import last_sample, samples_of, save_samples, thumbnail


def moment(step: int, *colours: str) -> Sampled:
    pictures = [Image.new("RGB", (64, 64), colour) for colour in colours]
    return Sampled(step, [f"a {colour} thing, ünusual" for colour in colours], pictures)


def test_the_sheet_has_a_row_for_each_moment_and_a_column_for_each_prompt(tmp_path: Path):
    folder = RunFolder(tmp_path, "cat").make()
    save_samples(folder, moment(0, "red", "blue"))
    save_samples(folder, moment(100, "lime", "yellow"))

    with Image.open(folder.samples / "cat.png") as sheet:
        seen = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20)}
        assert {(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 0)} <= seen
        # 64 pixels are enlarged to 192; the second row is a picture's side and a label below the first.
        assert {sheet.getpixel((x, y)) for x in (6, 194) for y in (34, 222)} == {(255, 0, 0)}
        assert sheet.getpixel((10, 40 + 196 + 16)) == (0, 255, 0)


def test_a_long_run_shows_some_of_its_moments_evenly(tmp_path: Path):
    folder = RunFolder(tmp_path, "cat").make()
    for step in range(40):
        Image.new("RGB", (8, 8)).save(folder.sample(step, 0))
    save_samples(folder, moment(40, "red"))

    with Image.open(folder.samples / "cat.png") as sheet:
        assert sheet.height < 25 * 220
    assert len(samples_of(folder)) == 41


def test_the_last_sample_is_that_of_the_newest_step(tmp_path: Path):
    folder = RunFolder(tmp_path, "cat").make()
    assert last_sample(folder) is None
    save_samples(folder, moment(100, "lime", "yellow"))
    save_samples(folder, moment(20, "red", "blue"))

    picture = last_sample(folder)

    assert picture is not None
    assert picture.getpixel((0, 0)) == (0, 255, 0)


def test_the_thumbnail_is_a_small_jpeg_that_readers_take(tmp_path: Path):
    url = thumbnail(Image.effect_noise((1024, 512), 80).convert("RGBA"))

    assert read_metadata({"modelspec.thumbnail": url}).thumbnail == url
    with Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,")))) as picture:
        assert picture.size == (256, 128)
    assert len(url) < 100_000
