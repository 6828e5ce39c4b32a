"""Views: the part of a picture that fills a bucket, in the middle or drawn at random."""

from __future__ import annotations

from ..config import DataSection
from ..seeds import fraction
from .picture import Picture
from .sample import View

Size = tuple[int, int]


def covering(size: Size, target: Size) -> Size:
    """(width, height) that a picture is scaled to, in its proportions, so that it just covers ``target``."""
    scale = max(target[0] / size[0], target[1] / size[1])
    return max(target[0], round(size[0] * scale)), max(target[1], round(size[1] * scale))


def center_view(picture: Picture, size: Size, *, flip: bool = False) -> View:
    """The middle of the picture."""
    resized = covering(picture.size, size)
    return View(size, resized, ((resized[0] - size[0]) // 2, (resized[1] - size[1]) // 2), flip)


def drawn_view(picture: Picture, size: Size, rules: DataSection, seed: int, step: int, position: int) -> View:
    """The view of one draw, a function of (seed, step, position)."""

    def draw(what: str) -> float:
        return fraction(seed, what, step, position)

    view = center_view(picture, size, flip=bool(rules.flip) and draw("flip") < rules.flip)
    corner, jitter = view.corner, None
    if rules.crop == "random":
        slack = view.resized[0] - size[0], view.resized[1] - size[1]
        corner = int(draw("left") * (slack[0] + 1)), int(draw("top") * (slack[1] + 1))
    if rules.colour_jitter:
        jitter = (
            _factor(draw("brightness"), rules.colour_jitter),
            _factor(draw("contrast"), rules.colour_jitter),
            _factor(draw("saturation"), rules.colour_jitter),
        )
    return View(size, view.resized, corner, view.flip, jitter)


def _factor(draw: float, share: float) -> float:
    return 1 + share * (2 * draw - 1)


def possible_views(picture: Picture, size: Size, rules: DataSection) -> list[View] | None:
    """All views that can be drawn of a picture, or None where there are too many to keep."""
    plain = center_view(picture, size)
    if rules.colour_jitter or (rules.crop == "random" and plain.resized != size):
        return None
    mirrored = [center_view(picture, size, flip=True)] if rules.flip else []
    return mirrored if rules.flip == 1 else [plain, *mirrored]


def size_row(picture: Picture, view: View) -> list[float]:
    """SDXL's size conditions: original height and width, top and left of the crop, target height and width.

    The crop of a mirrored picture is counted from the left of the mirrored picture, which is what the model sees.
    """
    left, top = view.corner
    if view.flip:
        left = view.resized[0] - view.size[0] - left
    (width, height), (wide, high) = picture.size, view.size
    return [float(number) for number in (height, width, top, left, high, wide)]
