"""From bytes to pixels: every kind of picture file, upright, on white, cut as its view says."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps, PngImagePlugin

from lora_core.errors import ConfigError, CorruptFileError
from lora_core.train.data.picture import Picture, look, look_at_all
from lora_core.train.data.pixels import view_mask, view_pixels
from lora_core.train.data.sample import View
from lora_core.train.data.views import center_view
from painted import noise, paint


def picture_of(path: Path, **facts: Any) -> Picture:
    seen = look(path)
    return Picture(path, path.name, seen.size, seen.sha256, alpha=seen.alpha, **facts)


def whole(path: Path) -> torch.Tensor:
    """All pixels of a file, as they are."""
    picture = picture_of(path)
    return view_pixels(picture, View(picture.size, picture.size, (0, 0)))


def values(image: Image.Image) -> torch.Tensor:
    """An RGB image as (3, h, w) in [-1, 1], worked out another way."""
    rows = [[image.getpixel((x, y)) for x in range(image.width)] for y in range(image.height)]
    return torch.tensor(rows, dtype=torch.float32).permute(2, 0, 1) / 127.5 - 1


def test_black_is_minus_one_and_white_is_one(tmp_path: Path):
    image = Image.new("RGB", (2, 1), "black")
    image.putpixel((1, 0), (255, 128, 0))
    image.save(tmp_path / "a.png")

    expected = torch.tensor([[[-1.0, 1.0]], [[-1.0, 128 / 127.5 - 1]], [[-1.0, -1.0]]])
    # One rounding of a number near 1 in float32.
    torch.testing.assert_close(whole(tmp_path / "a.png"), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("ending", ["png", "webp", "bmp", "gif", "tiff"])
def test_formats_without_loss_give_the_same_pixels(tmp_path: Path, ending: str):
    image = noise((20, 12)).quantize(200)  # a GIF has no more than 256 colours
    path = tmp_path / f"a.{ending}"
    (image if ending == "gif" else image.convert("RGB")).save(path, **({"lossless": True} if ending == "webp" else {}))

    assert torch.equal(whole(path), values(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "PA"])
def test_all_kinds_of_pixels_become_rgb(tmp_path: Path, mode: str):
    image = noise((16, 16)).convert("L").convert(mode)
    path = tmp_path / ("a.tiff" if mode in ("CMYK", "PA") else "a.png")
    if mode == "PA":
        image = image.convert("LA")
    image.save(path)

    assert torch.equal(whole(path), values(image.convert("RGB")))


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path, ending: str):
    image = Image.new("I;16", (4, 1))
    for x, value in enumerate((0, 10415, 65279, 65535)):  # 40.5 and 254.004 times 257
        image.putpixel((x, 0), value)
    image.save(tmp_path / f"a.{ending}")

    assert ((whole(tmp_path / f"a.{ending}")[0, 0] + 1) * 127.5).tolist() == pytest.approx([0, 41, 254, 255], abs=1e-4)


def test_what_is_transparent_is_white(tmp_path: Path):
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 51))  # a fifth of black
    image.save(tmp_path / "a.png")
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "b.png", transparency=0)

    assert ((whole(tmp_path / "a.png") + 1) * 127.5)[:, 0].T.tolist() == [[255] * 3, [255, 0, 0], [204] * 3]
    assert ((whole(tmp_path / "b.png") + 1) * 127.5)[:, 0].T.tolist() == [[255] * 3, [255, 0, 0]]
    assert look(tmp_path / "a.png").alpha
    assert look(tmp_path / "b.png").alpha


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
def test_pictures_are_turned_the_way_their_exif_says(tmp_path: Path, ending: str, turn: int):
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / f"a.{ending}"
    noise((24, 16)).save(path, exif=exif)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")

    assert look(path).size == upright.size == ((24, 16) if turn < 5 else (16, 24))
    assert torch.equal(whole(path), values(upright))


def test_exif_behind_the_pixels_of_a_png_is_seen(tmp_path: Path):
    """Some programs add it there."""
    exif = Image.Exif()
    exif[0x0112] = 6
    plain, chunk = BytesIO(), BytesIO()
    noise((24, 16)).save(plain, "png")
    PngImagePlugin.putchunk(chunk, b"eXIf", exif.tobytes()[6:])
    data, end = plain.getvalue(), plain.getvalue().rindex(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(data[:end] + chunk.getvalue() + data[end:])

    assert look(tmp_path / "a.png").size == (16, 24)
    assert torch.equal(whole(tmp_path / "a.png"), values(noise((24, 16)).transpose(Image.Transpose.ROTATE_270)))


def test_the_view_is_scaled_cut_and_mirrored(tmp_path: Path):
    picture = picture_of(paint(tmp_path / "a.png", (96, 64)))
    scaled = noise((96, 64)).resize((48, 32), Image.Resampling.LANCZOS)

    seen = view_pixels(picture, View((16, 24), (48, 32), (5, 8)))
    mirrored = view_pixels(picture, View((16, 24), (48, 32), (5, 8), flip=True))

    assert torch.equal(seen, values(scaled.crop((5, 8, 21, 32))))
    assert torch.equal(mirrored, seen.flip(-1))


def test_colours_change_by_brightness_then_contrast_then_saturation(tmp_path: Path):
    picture = picture_of(paint(tmp_path / "a.png"))
    image = ImageEnhance.Brightness(noise((64, 64))).enhance(1.1)
    image = ImageEnhance.Color(ImageEnhance.Contrast(image).enhance(0.9)).enhance(1.2)

    seen = view_pixels(picture, View((64, 64), (64, 64), (0, 0), jitter=(1.1, 0.9, 1.2)))

    assert torch.equal(seen, values(image))


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_file_that_is_no_picture_is_named(tmp_path: Path, data: bytes):
    (tmp_path / "broken.png").write_bytes(data)

    with pytest.raises(CorruptFileError, match=r"broken.png: cannot be read as a picture .* take it out of the folder"):
        look(tmp_path / "broken.png")


def test_all_broken_files_are_named_at_once(tmp_path: Path):
    for number in range(7):
        (tmp_path / f"b{number}.png").write_bytes(b"x")

    with pytest.raises(ConfigError, match=r"b0.png.*b4.png.*and 2 more"):
        look_at_all(sorted(tmp_path.iterdir()), tmp_path)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_file_that_ends_too_soon_is_named(tmp_path: Path, ending: str):
    path = tmp_path / f"short.{ending}"
    noise((64, 64)).save(path)
    os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(CorruptFileError, match=f"short.{ending}: cannot be read as a picture"):
        whole(path)


def test_floating_point_pixels_are_refused(tmp_path: Path):
    Image.new("F", (8, 8), 0.5).save(tmp_path / "a.tiff")

    with pytest.raises(CorruptFileError, match="floating-point"):
        whole(tmp_path / "a.tiff")


def test_a_picture_that_was_changed_during_the_run_is_not_taken_for_the_old_one(tmp_path: Path):
    picture = picture_of(paint(tmp_path / "a.png"))
    paint(tmp_path / "a.png", seed=1)

    with pytest.raises(CorruptFileError, match=r"a.png: the picture was changed since the run began"):
        view_pixels(picture, center_view(picture, (64, 64)))


def test_a_mask_weighs_latents_by_the_mean_of_their_pixels(tmp_path: Path):
    path = paint(tmp_path / "a.png", (32, 16))
    mask = Image.new("L", (32, 16), 0)
    mask.paste(255, (4, 0, 16, 16))  # half of the first latent, all of the second
    mask.save(tmp_path / "a.mask.png")
    picture = picture_of(path, mask=tmp_path / "a.mask.png")
    view = View((32, 16), (32, 16), (0, 0))

    seen = view_mask(picture, view, "file", 0.1, 8)
    mirrored = view_mask(picture, View((32, 16), (32, 16), (0, 0), flip=True), "auto", 0.0, 8)

    assert seen is not None
    assert mirrored is not None
    assert seen.shape == (1, 2, 4)
    assert seen[0, 0].tolist() == pytest.approx([0.55, 1.0, 0.1, 0.1])
    assert mirrored[0, 1].tolist() == [0, 0, 1, 0.5]


def test_the_alpha_channel_is_a_mask(tmp_path: Path):
    image = noise((16, 16))
    alpha = Image.new("L", (16, 16), 255)
    alpha.paste(0, (0, 0, 8, 16))
    image.putalpha(alpha)
    image.save(tmp_path / "a.png")
    paint(tmp_path / "b.png", (16, 16))
    view = View((16, 16), (16, 16), (0, 0))

    seen = view_mask(picture_of(tmp_path / "a.png"), view, "alpha", 0.25, 8)

    assert seen is not None
    assert seen[0, 0].tolist() == [0.25, 1]
    assert view_mask(picture_of(tmp_path / "b.png"), view, "alpha", 0.25, 8) is None
    assert view_mask(picture_of(tmp_path / "a.png"), view, "file", 0.25, 8) is None


def test_a_mask_of_another_size_is_a_fault(tmp_path: Path):
    path = paint(tmp_path / "a.png", (32, 16))
    Image.new("L", (16, 16)).save(tmp_path / "a.mask.png")
    picture = picture_of(path, mask=tmp_path / "a.mask.png")

    with pytest.raises(CorruptFileError, match=r"a.mask.png: the mask is 16x16, a.png is 32x16"):
        view_mask(picture, View((32, 16), (32, 16), (0, 0)), "file", 0.1, 8)
