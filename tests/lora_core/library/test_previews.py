"""Small pictures: which picture, how large, kept how long, and what becomes of hostile ones."""

from __future__ import annotations

import base64
import io
import os
import zlib
from pathlib import Path

import pytest
from PIL import Image

from lora_core.errors import CorruptFileError
from lora_core.library import previews
from lora_core.library.previews import Previews, clamp, find_picture, thumbnail

from .conftest import Shelf


def encoded(kind: str, size: tuple[int, int] = (300, 200), colour: object = (200, 30, 30), **options: object) -> bytes:
    out = io.BytesIO()
    mode = "RGBA" if isinstance(colour, tuple) and len(colour) == 4 else "RGB"
    Image.new(mode, size, colour).save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "WEBP"
    image.load()
    return image


def small(path: Path, size: int = 128) -> Image.Image:
    picture = find_picture(path)
    assert picture is not None
    return opened(thumbnail(picture, size))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ink.png", "PNG"),
        ("ink.jpeg", "JPEG"),
        ("ink.webp", "WEBP"),
        ("ink.preview.png", "PNG"),
        ("ink.preview.gif", "GIF"),
    ],
)
def test_a_picture_beside_the_file(shelf: Shelf, name: str, kind: str) -> None:
    path = shelf.put("ink.safetensors")
    path.with_name(name).write_bytes(encoded(kind))
    image = small(path)
    assert image.size == (128, 85)
    red, green, blue = image.convert("RGB").getpixel((60, 40))  # type: ignore[misc]
    assert red > 180
    assert max(green, blue) < 50


def test_it_is_never_larger_than_the_picture(shelf: Shelf) -> None:
    path = shelf.put("ink.safetensors")
    path.with_suffix(".png").write_bytes(encoded("PNG", (40, 90)))
    assert small(path, 1024).size == (40, 90)


def test_a_picture_in_the_header_and_none(shelf: Shelf) -> None:
    url = "data:image/jpeg;base64," + base64.b64encode(encoded("JPEG")).decode()
    path = shelf.put("ink.safetensors", **{"modelspec.thumbnail": url})
    assert small(path).size == (128, 85)
    path.with_suffix(".png").write_bytes(encoded("PNG", (50, 50)))
    assert small(path).size == (50, 50)  # the one beside goes first
    assert find_picture(shelf.put("none.safetensors")) is None
    assert find_picture(shelf.put("bad.safetensors", **{"modelspec.thumbnail": "data:image/png;base64,@@@"})) is None
    (shelf.folders[0] / "no_lora.safetensors").write_bytes(b"x")
    assert find_picture(shelf.folders[0] / "no_lora.safetensors") is None
    assert find_picture(shelf.folders[0] / "not_there.safetensors") is None


def test_transparency_and_the_turn_of_a_camera(shelf: Shelf) -> None:
    path = shelf.put("ink.safetensors")
    path.with_suffix(".png").write_bytes(encoded("PNG", colour=(10, 20, 30, 0)))
    assert small(path).mode == "RGBA"
    path.with_suffix(".png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    path.with_suffix(".jpg").write_bytes(encoded("JPEG", exif=exif.tobytes()))
    assert small(path).size == (85, 128)


def test_of_a_moving_picture_the_first_frame(shelf: Shelf) -> None:
    path = shelf.put("ink.safetensors")
    frames = [Image.new("RGB", (80, 80), colour) for colour in ((0, 0, 250), (0, 250, 0))]
    frames[0].save(path.with_name("ink.preview.gif"), save_all=True, append_images=frames[1:])
    image = small(path)
    assert image.convert("RGB").getpixel((10, 10))[2] > 200  # type: ignore[index]
    assert getattr(image, "n_frames", 1) == 1


def huge_png(side: int) -> bytes:
    """A few kilobytes that unpack to side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "data",
    [
        b"", b"no picture", b"\x89PNG\r\n\x1a\n", encoded("PNG")[:200], encoded("JPEG")[:100], huge_png(60_000),
        huge_png(9_000), encoded("BMP"), b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe\n",
        b"GIF89a" + b"\xff" * 30,
    ],
    ids=["empty", "text", "stub", "cut png", "cut jpeg", "bomb", "large", "bmp", "svg", "postscript", "gif"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["ink.png", "ink.preview.mp4", "ink.preview.webm"])
def test_what_is_no_picture_is_one_line(shelf: Shelf, data: bytes, name: str) -> None:
    path = shelf.put("ink.safetensors")
    path.with_name(name).write_bytes(data)
    picture = find_picture(path)
    assert picture is not None
    with pytest.raises(CorruptFileError) as caught:
        thumbnail(picture, 128)
    assert caught.value.message.startswith(f"{name}: ")
    assert str(path.parent) not in caught.value.message


def test_a_file_that_is_too_large_is_not_read(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shelf.put("ink.safetensors")
    path.with_suffix(".png").write_bytes(encoded("PNG"))
    monkeypatch.setattr(previews, "MAX_BYTES", 100)
    with pytest.raises(CorruptFileError, match="larger than 100 bytes"):
        small(path)


def test_a_picture_is_made_once_and_again_when_it_changes(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shelf.put("ink.safetensors")
    beside = path.with_suffix(".png")
    beside.write_bytes(encoded("PNG"))
    made: list[int] = []

    def counted(picture: previews.Picture, size: int) -> bytes:
        made.append(size)
        return thumbnail(picture, size)

    monkeypatch.setattr(previews, "thumbnail", counted)
    kept = Previews(tmp_path / "kept")

    def get(size: int) -> tuple[bytes, str]:
        picture = find_picture(path)
        assert picture is not None
        return kept.get(picture, size)

    first = get(128)
    assert get(128) == first
    assert Previews(tmp_path / "kept").get(find_picture(path), 128) == first  # type: ignore[arg-type]
    assert get(64)[1] != first[1]
    beside.write_bytes(encoded("PNG", colour=(1, 2, 3)))
    os.utime(beside, ns=(1, 1))
    assert get(128) != first
    assert made == [128, 64, 128]


def test_what_was_not_asked_for_longest_goes_first(tmp_path: Path) -> None:
    kept = Previews(tmp_path / "kept", files=10)
    pictures = [previews.Picture(f"{n}.png", None, encoded("PNG", (64, 64), (n, 0, 0)), str(n)) for n in range(30)]
    for number, picture in enumerate(pictures):
        _, tag = kept.get(picture, 64)
        os.utime(tmp_path / "kept" / f"{tag}.webp", ns=(number, number))
    left = {path.stem for path in (tmp_path / "kept").iterdir()}
    assert len(left) <= 10
    assert previews.tag_of(pictures[-1], 64) in left
    assert previews.tag_of(pictures[0], 64) not in left


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    noise = [Image.effect_noise((64, 64), 90.0 + n) for n in range(20)]
    kept = Previews(tmp_path / "kept", size=10_000)
    for number, image in enumerate(noise):
        out = io.BytesIO()
        image.save(out, "PNG")
        kept.get(previews.Picture("x", None, out.getvalue(), str(number)), 64)
        assert sum(path.stat().st_size for path in (tmp_path / "kept").iterdir()) <= 10_000


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    picture = previews.Picture("x", None, encoded("PNG"), "state")
    assert opened(Previews(tmp_path / "file" / "kept").get(picture, 64)[0]).size == (64, 43)
    assert opened(Previews(None).get(picture, 64)[0]).size == (64, 43)


def test_sizes_are_bounded() -> None:
    assert [clamp(size) for size in (-5, 0, 64, 300, 1024, 10**9)] == [64, 64, 64, 300, 1024, 1024]
