"""A picture of the folder, and the first look at its file: size, orientation, digest of its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from ...errors import ConfigError, CorruptFileError

# EXIF's tag 274: values of 5 and more turn the picture by a quarter, so that width and height change places.
_ORIENTATION, _QUARTER = 0x0112, 5
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of a picture before it is decoded.

    Args:
        path: its file.
        name: path inside the folder of the data, with ``/``, for messages and for the order.
        size: (width, height) in pixels, the way up that its EXIF data says.
        sha256: of the file's bytes; caches and the validation split go by it.
        captions: alternatives, before any rule is applied.
        repeats: times that it counts in an epoch.
        weight: of its loss.
        prior: of the class, for prior preservation.
        group: the name of the folder that it lies in, for tag frequencies.
        mask: file with the weight of each pixel, if any.
        alpha: whether the file has an alpha channel.
    """

    path: Path
    name: str
    size: tuple[int, int]
    sha256: str
    captions: tuple[str, ...] = ("",)
    repeats: int = 1
    weight: float = 1.0
    prior: bool = False
    group: str = ""
    mask: Path | None = None
    alpha: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What the bytes of a picture's file say without decoding its pixels."""

    size: tuple[int, int]
    sha256: str
    alpha: bool


def look(path: Path) -> Look:
    """Read a file once. Raises CorruptFileError where no picture can be made of it."""
    data = path.read_bytes()
    image = open_image(data, path.name)
    turn = orientation(image, data)
    width, height = image.size
    if turn >= _QUARTER:
        width, height = height, width
    return Look((width, height), hashlib.sha256(data).hexdigest(), has_alpha(image))


def look_at_all(paths: Sequence[Path], folder: Path) -> list[Look]:
    """Looks at many files, several at a time; all that are broken are named in one error."""

    def careful(path: Path) -> Look | CorruptFileError:
        try:
            return look(path)
        except CorruptFileError as error:
            return error

    with ThreadPoolExecutor(4, "loom-look") as pool:
        looks = list(pool.map(careful, paths))
    broken = [each for each in looks if isinstance(each, CorruptFileError)]
    if len(broken) == 1:
        raise broken[0]
    if broken:
        more = [f"and {len(broken) - _SHOWN} more"] if len(broken) > _SHOWN else []
        raise ConfigError(str(folder), [f"{each.file}: {each.what}" for each in broken[:_SHOWN]] + more)
    return [each for each in looks if isinstance(each, Look)]


def open_image(data: bytes, name: str) -> Image.Image:
    """An image whose pixels are not decoded yet."""
    if not data:
        raise unreadable(name, "the file is empty")
    try:
        return Image.open(BytesIO(data))
    except Image.UnidentifiedImageError:
        raise unreadable(name, "its bytes are of no kind of picture that is known") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise unreadable(name, str(error)) from None


def unreadable(name: str, why: str) -> CorruptFileError:
    return CorruptFileError(
        name,
        f"cannot be read as a picture ({why})",
        "Save or copy the picture again, or take it out of the folder.",
    )


def orientation(image: Image.Image, data: bytes) -> int:
    """EXIF's orientation, 1 to 8; 1 where nothing is said.

    Pillow decodes a whole PNG to look for EXIF data behind its pixels, so it is asked only where there may be some.
    It turns a TIFF by itself when it decodes it.
    """
    if image.format == "PNG" and b"eXIf" not in data and b"exif" not in data:
        return 1
    try:
        if image.format == "TIFF":
            image.load()
            return 1
        value = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError):  # damaged EXIF data says nothing; damaged pixels are met when decoding
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
