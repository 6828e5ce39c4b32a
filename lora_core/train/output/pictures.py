"""Pictures drawn on the way: PNG files, a sheet of all of them, and the small one in the metadata."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...io.atomic import atomic_file
from ..events import Sampled
from .folder import RunFolder

if TYPE_CHECKING:
    from PIL.Image import Image

# A data URL of this side is about 20 KB, which every start of every program that lists LoRAs reads.
THUMBNAIL = 256
_SHEET_SIDE = 192
_GAP, _LABEL = 4, 16
# Rows of a sheet; of more moments, some evenly apart are shown.
_ROWS = 24


def thumbnail(picture: Image) -> str:
    """A JPEG of at most 256 pixels a side as a data URL, for ``modelspec.thumbnail``."""
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return f"data:image/jpeg;base64,{base64.b64encode(_encoded(small, 'JPEG', quality=85)).decode()}"


def save_samples(folder: RunFolder, sampled: Sampled) -> list[Path]:
    """Write the pictures of a moment and draw the sheet anew; the prompt is in each picture's text ``prompt``."""
    from PIL.PngImagePlugin import PngInfo

    folder.samples.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for number, (prompt, picture) in enumerate(zip(sampled.prompts, sampled.pictures, strict=True)):
        text = PngInfo()
        text.add_itxt("prompt", prompt)
        text.add_text("step", str(sampled.step))
        path = folder.sample(sampled.step, number)
        _write(path, _encoded(picture, "PNG", pnginfo=text))
        paths.append(path)
    draw_sheet(folder, sampled.prompts)
    return paths


def draw_sheet(folder: RunFolder, prompts: Sequence[str]) -> Path | None:
    """All samples of a run in one picture, a row for each moment and a column for each prompt; None without any."""
    from PIL import Image, ImageDraw, ImageOps

    moments = samples_of(folder)
    if not moments:
        return None
    steps = _evenly(sorted(moments), _ROWS)
    columns = 1 + max(number for step in steps for number in moments[step])
    side = _SHEET_SIDE + _GAP
    sheet = Image.new("RGB", (columns * side + _GAP, _LABEL + len(steps) * (side + _LABEL) + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for column, prompt in enumerate(prompts[:columns]):
        pen.text((_GAP + column * side, 2), _fitting(prompt), fill="black")
    for row, step in enumerate(steps):
        top = _LABEL + row * (side + _LABEL)
        pen.text((_GAP, top), f"step {step}", fill="black")
        for number, path in moments[step].items():
            picture = ImageOps.contain(_read(path), (_SHEET_SIDE, _SHEET_SIDE))
            sheet.paste(picture, (_GAP + number * side, top + _LABEL))
    target = _sheet(folder)
    _write(target, _encoded(sheet, "PNG"))
    return target


def samples_of(folder: RunFolder) -> dict[int, dict[int, Path]]:
    """step -> number of the prompt -> picture, of all that are there."""
    pattern = re.compile(re.escape(folder.name) + r"-(\d{6,})-(\d+)\.png")
    found: dict[int, dict[int, Path]] = {}
    for path in sorted(folder.samples.iterdir()) if folder.samples.is_dir() else ():
        if match := pattern.fullmatch(path.name):
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    return found


def remove_samples(folder: RunFolder, start: int) -> None:
    """Those after a step, or with 0 those of an older run altogether; the next ones come with a new sheet."""
    gone = [
        path for step, pictures in samples_of(folder).items() if not start or step > start for path in pictures.values()
    ]
    for path in gone:
        path.unlink()
    if gone:
        _sheet(folder).unlink(missing_ok=True)


def last_sample(folder: RunFolder) -> Image | None:
    """The newest picture of the first prompt, for the metadata of a run that goes on."""
    moments = samples_of(folder)
    if not moments:
        return None
    newest = moments[max(moments)]
    return _read(newest[min(newest)])


def _sheet(folder: RunFolder) -> Path:
    return folder.samples / f"{folder.name}.png"


def _evenly(steps: Sequence[int], count: int) -> list[int]:
    """The first, the last, and those between."""
    if len(steps) <= count:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (count - 1))] for index in range(count)]


def _fitting(text: str) -> str:
    """As much of a prompt as goes above a picture; the built-in letters are about 6 pixels wide."""
    room = _SHEET_SIDE // 6
    return text if len(text) <= room else text[: room - 3] + "..."


def _read(path: Path) -> Image:
    from PIL import Image

    opened: Any = Image.open(path)
    with opened:
        return opened.convert("RGB")


def _encoded(picture: Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path, size=len(content), overwrite=True) as file:
        file.write(content)
