"""A small picture of a training that is going on: the curve of its loss, and beneath it the last samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH, HEIGHT, MARGIN, TEXT = 512, 200, 12, 18
# Of a point's mean, how much the points before it keep: the noise of single steps is larger than what is learned.
_KEPT = 0.95
_POINTS = WIDTH - 2 * MARGIN

Point = tuple[int, float]


def draw(title: str, losses: Sequence[Point], validation: Sequence[Point], samples: Sequence[Image]) -> Image:
    """An RGB picture, 512 pixels wide.

    Args:
        title: one line above the curve.
        losses: (step, loss) of all steps so far.
        validation: (step, loss) where it was measured.
        samples: of the last moment.
    """
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    shown = samples[:4]
    side = (WIDTH - MARGIN) // max(2, len(shown)) - MARGIN
    picture = Image.new("RGB", (WIDTH, HEIGHT + (side + MARGIN if shown else 0)), "#1e1e24")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    pen.text((MARGIN, 6), title, fill="#d8d8e0", font=font)
    curve = smoothed(losses)
    if len(curve) > 1:
        box = (MARGIN, MARGIN + TEXT, WIDTH - MARGIN, HEIGHT - MARGIN)
        span = (curve[0][0], curve[-1][0], *_range(curve))
        pen.line([_at(point, span, box) for point in thinned(losses) if span[2] <= point[1] <= span[3]], fill="#3a4358")
        if len(validation) > 1:  # of its own height: it is measured at other timesteps, and without weights
            own = (span[0], span[1], *_range(validation))
            pen.line([_at(point, own, box) for point in validation], fill="#e8a33d", width=2)
        pen.line([_at(point, span, box) for point in curve], fill="#5b8def", width=2)
    for number, sample in enumerate(shown):
        small = ImageOps.contain(sample, (side, side))
        picture.paste(small, (MARGIN + number * (side + MARGIN), HEIGHT))
    return picture


def smoothed(points: Sequence[Point]) -> list[Point]:
    """A running mean that begins at the first value, at most one point a pixel."""
    made: list[Point] = []
    mean = points[0][1] if points else 0.0
    for step, value in points:
        mean = _KEPT * mean + (1 - _KEPT) * value
        made.append((step, mean))
    return thinned(made)


def thinned(points: Sequence[Point]) -> list[Point]:
    """Some of the points, evenly apart, with the last."""
    apart = max(1, len(points) // _POINTS)
    return [*points[:-1:apart], *points[-1:]]


def _range(points: Sequence[Point]) -> tuple[float, float]:
    values = [value for _, value in points]
    return min(values), max(values)


def _at(point: Point, span: tuple[int, int, float, float], box: tuple[int, int, int, int]) -> tuple[float, float]:
    first, last, low, high = span
    left, top, right, bottom = box
    return (
        left + (right - left) * (point[0] - first) / max(1, last - first),
        bottom - (bottom - top) * (point[1] - low) / ((high - low) or 1.0),
    )
