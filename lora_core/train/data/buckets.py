"""Buckets: sizes of nearly the same area, so that pictures keep their proportions and a batch has one size."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, log

from ...errors import ConfigError
from ..config import DataSection
from .views import Size


def bucket_sizes(rules: DataSection, size_step: int) -> list[Size]:
    """All sizes that pictures may be cut to, (width, height).

    Sides are multiples of ``bucket_step``; the height is the largest with which the area is not over that of the
    resolution. One size, the resolution, where buckets are off.

    Raises:
        ConfigError: sides that the model cannot take, or a resolution below one step.
    """
    width, height = rules.resolution
    if not rules.buckets:
        if faults := [_fault("data.resolution", side, size_step) for side in {width, height} if side % size_step]:
            raise ConfigError("settings", faults)
        return [(width, height)]
    step = rules.bucket_step
    if step % size_step:
        raise ConfigError("settings", [_fault("data.bucket_step", step, size_step)])
    if min(width, height) < step:
        raise ConfigError(
            "settings",
            [f"data.resolution {width}x{height} is below data.bucket_step {step}: set a smaller step, or buckets off"],
        )
    area = width * height
    longest = int((area * rules.max_aspect) ** 0.5)
    square = isqrt(area) // step * step
    sizes = {(square, square)}
    for short in range(step, square + 1, step):
        long = min(area // short, longest) // step * step
        if short <= long <= short * rules.max_aspect:
            sizes |= {(short, long), (long, short)}
    return sorted(sizes)


def bucket_of(size: Size, sizes: Sequence[Size], rules: DataSection) -> Size:
    """The bucket whose proportions are nearest to a picture's.

    A picture that would have to be enlarged goes to a smaller bucket, of its own sides rounded down, unless
    ``upscale`` allows it or there are no buckets.
    """
    aspect = log(size[0] / size[1])
    best = min(sizes, key=lambda each: (abs(log(each[0] / each[1]) - aspect), -each[0] * each[1], each))
    if not rules.buckets or rules.upscale or (size[0] >= best[0] and size[1] >= best[1]):
        return best
    step = rules.bucket_step
    width, height = (max(step, min(side, limit) // step * step) for side, limit in zip(size, best, strict=True))
    return width, height


def _fault(name: str, value: int, size_step: int) -> str:
    nearest = max(size_step, round(value / size_step) * size_step)
    return f"{name} {value} is not a multiple of {size_step}, which the model needs: set {nearest}"
