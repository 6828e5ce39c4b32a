"""A contact sheet: pictures of a data set with their captions beneath, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

MOST = 24
COLUMNS, SIDE, MARGIN, LINE, LINES = 6, 160, 12, 15, 3
# A caption of a thousand words is measured no further than it is shown.
_READ = 400


def draw(pictures: Sequence[tuple[Any, str]], title: str) -> torch.Tensor:
    """The sheet as an IMAGE of the host: (1, height, width, 3), 0 to 1.

    Args:
        pictures: Pillow images, each with its caption.
        title: stands above.
    """
    import numpy
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    font = ImageFont.load_default(12)
    columns = max(1, min(COLUMNS, len(pictures)))
    rows = -(-len(pictures) // columns)
    cell = SIDE + MARGIN, SIDE + LINES * LINE + MARGIN
    size = MARGIN + max(columns, 3) * cell[0], 2 * MARGIN + LINE + rows * cell[1]
    sheet = Image.new("RGB", size, "#1e1e24")
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, fill="#ffffff", font=font)
    for number, (picture, caption) in enumerate(pictures):
        left = MARGIN + number % columns * cell[0]
        top = 2 * MARGIN + LINE + number // columns * cell[1]
        shown = ImageOps.pad(picture.convert("RGB"), (SIDE, SIDE), color="#2a2a32")
        sheet.paste(shown, (left, top))
        for line, words in enumerate(_wrapped(caption, lambda text: pen.textlength(text, font=font))):
            pen.text((left, top + SIDE + 2 + line * LINE), words, fill="#d8d8e0", font=font)
    return torch.from_numpy(numpy.asarray(sheet).astype(numpy.float32) / 255.0)[None]


def _wrapped(text: str, width: Any) -> list[str]:
    """At most LINES lines of SIDE pixels; the last ends in dots where there is more."""
    lines = [""]
    for word in text[:_READ].split():
        longer = f"{lines[-1]} {word}".strip()
        if width(longer) <= SIDE or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    shown = [_cut(line, width) for line in lines[:LINES]]
    if len(lines) > LINES or len(text) > _READ:
        shown[-1] = _cut(f"{shown[-1]}...", width)
    return shown


def _cut(line: str, width: Any) -> str:
    if width(line) <= SIDE:
        return line
    while line and width(f"{line}...") > SIDE:
        line = line[:-1].rstrip(". ")
    return f"{line}..."
