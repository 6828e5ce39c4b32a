"""Small pictures of LoRAs: found beside the file or in its header, made as WebP, kept on disk.

The pictures are of strangers: of a few kinds only, bounded in bytes and pixels, and one that cannot be read is an
error of one line. Of a moving one the first frame is shown.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CorruptFileError, LoomError
from ..io import open_tensors
from ..io.atomic import atomic_file
from ..metadata import read_metadata
from ..sidecars import read_sidecars

if TYPE_CHECKING:
    from PIL.Image import Image

SMALLEST, LARGEST = 64, 1024
# Kinds that Pillow may open here; it knows many more, some of them rarely looked after.
_KINDS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF")
# Suffix -> how ffmpeg is to read it. Left to guess, it would take a play list, which names other files.
_MOVING = {".mp4": "mp4", ".webm": "matroska"}
MAX_BYTES = 64_000_000
MAX_PIXELS = 64_000_000


class Picture(NamedTuple):
    """Where a picture comes from.

    Args:
        name: to show in an error.
        file: beside the LoRA; None for one that is in its header.
        data: what the header holds; empty for a file.
        state: changes with the picture.
    """

    name: str
    file: Path | None
    data: bytes
    state: str


def find_picture(path: str | os.PathLike[str]) -> Picture | None:
    """The picture of a LoRA: beside the file, else in its header, else None."""
    file = Path(path)
    beside = read_sidecars(file).preview
    if beside is not None:
        with suppress(OSError):
            status = beside.stat()
            return Picture(beside.name, beside, b"", f"{beside}|{status.st_mtime_ns}|{status.st_size}")
    try:
        source = open_tensors(file)
        data = _decoded(read_metadata(source.metadata).thumbnail)
        source.close()
    except (LoomError, OSError):
        return None
    return Picture(file.name, None, data, hashlib.sha256(data).hexdigest()) if data else None


def _decoded(url: str) -> bytes:
    """The bytes of a data URL; none where it is not one."""
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except (ValueError, binascii.Error):
        return b""


def thumbnail(picture: Picture, size: int) -> bytes:
    """WebP of at most ``size`` pixels a side, never larger than the picture.

    Raises:
        CorruptFileError: the picture is broken, of another kind, or too large to be one.
    """
    try:
        image = _first_frame(picture, size)
        image.thumbnail((size, size))
        out = io.BytesIO()
        image.save(out, "WEBP", quality=82, method=2)
    except CorruptFileError:
        raise
    except Exception as error:  # what readers of pictures raise on hostile bytes has no bound
        what = f"this picture cannot be read ({type(error).__name__})"
        raise CorruptFileError(picture.name, what, "Put another one in its place.") from None
    return out.getvalue()


def _first_frame(picture: Picture, size: int) -> Image:
    if picture.file is not None and picture.file.suffix.lower() in _MOVING:
        return _first_of_video(picture.file)
    from PIL import Image as pictures
    from PIL import ImageOps

    if picture.file is not None:
        if picture.file.stat().st_size > MAX_BYTES:
            raise CorruptFileError(picture.name, f"larger than {MAX_BYTES} bytes, so it is not shown", "Shrink it.")
        data = picture.file.read_bytes()
    else:
        data = picture.data
    pictures.init()
    kinds = [kind for kind in _KINDS if kind in pictures.OPEN]
    opened: Image = pictures.open(io.BytesIO(data), formats=kinds)
    with opened:
        _check_pixels(picture.name, opened.size)
        opened.draft("RGB", (size, size))  # a JPEG is decoded at a fraction of its size
        image = ImageOps.exif_transpose(opened)
        has_alpha = "A" in image.getbands() or "transparency" in image.info
        return image.convert("RGBA" if has_alpha else "RGB")


def _check_pixels(name: str, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise CorruptFileError(name, f"{size[0]} x {size[1]} pixels, so it is not shown", "Shrink it.")


def _first_of_video(file: Path) -> Image:
    try:
        av: Any = import_module("av")  # a host has it, the library alone does not
    except ImportError:
        raise CorruptFileError(file.name, "a video, which this program cannot read", "Put a picture there.") from None
    with file.open("rb") as handle, av.open(handle, format=_MOVING[file.suffix.lower()]) as container:
        stream = container.streams.video[0]
        _check_pixels(file.name, (stream.width, stream.height))
        return next(container.decode(stream)).to_image()


class Previews:
    """Small pictures, kept in a folder. Any thread may call it.

    Args:
        folder: made when the first is kept; None keeps nothing.
        files, size: the most that is kept, in files and bytes; what was not asked for longest goes first.
    """

    def __init__(self, folder: Path | None, files: int = 10_000, size: int = 200_000_000) -> None:
        self._folder, self._most_files, self._most_bytes = folder, files, size
        self._lock = threading.Lock()
        self._files = self._bytes = -1  # not counted yet

    def get(self, picture: Picture, size: int) -> tuple[bytes, str]:
        """WebP and a tag that changes with it; errors as ``thumbnail``."""
        tag = tag_of(picture, size)
        if self._folder is None:
            return thumbnail(picture, size), tag
        place = self._folder / f"{tag}.webp"
        try:
            kept = place.read_bytes()
        except OSError:
            kept = b""
        if kept:
            with suppress(OSError):
                os.utime(place)
            return kept, tag
        made = thumbnail(picture, size)
        with suppress(OSError):  # no room, or no right to write: it is made again the next time
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(place, overwrite=True, durable=False) as handle:
                handle.write(made)
            self._kept(len(made))
        return made, tag

    def _kept(self, size: int) -> None:
        with self._lock:
            self._files, self._bytes = self._files + 1, self._bytes + size
            if self._files > 0 and self._files <= self._most_files and self._bytes <= self._most_bytes:
                return
            self._prune()

    def _prune(self) -> None:
        """Count; where there is too much, remove the oldest until a tenth is free."""
        assert self._folder is not None
        found: list[tuple[int, int, str]] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    status = entry.stat()
                    found.append((status.st_mtime_ns, status.st_size, entry.path))
        self._files, self._bytes = len(found), sum(size for _, size, _ in found)
        if self._files <= self._most_files and self._bytes <= self._most_bytes:
            return
        for _, size, path in sorted(found):
            if self._files <= self._most_files * 0.9 and self._bytes <= self._most_bytes * 0.9:
                break
            with suppress(OSError):
                os.unlink(path)
            self._files, self._bytes = self._files - 1, self._bytes - size


def tag_of(picture: Picture, size: int) -> str:
    """Name of the small picture of that size; for the browser's cache, too."""
    said = f"{picture.state}|{size}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(said, digest_size=16).hexdigest()


def clamp(size: int) -> int:
    """A size that is made: 64 to 1024 pixels."""
    return min(LARGEST, max(SMALLEST, size))
