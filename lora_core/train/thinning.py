"""Curves with fewer points that look the same.

Of each stretch of the curve its lowest and its highest point stay, so that every peak is where it was: a picture that
has fewer columns than there are stretches is the same to the pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[int, float]


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many of the points, in their order, the first and the last among them.

    Args:
        points: (step, value) in the order of steps.
        most: 4 or more.

    >>> thinned([(1, 0.0), (2, 5.0), (3, -5.0), (4, 0.0), (5, 1.0), (6, 0.0)], 4)
    [(1, 0.0), (2, 5.0), (3, -5.0), (6, 0.0)]
    """
    if len(points) <= most:
        return list(points)
    inner = points[1:-1]
    stretches = (most - 2) // 2
    kept = [points[0]]
    for index in range(stretches):
        part = inner[index * len(inner) // stretches : (index + 1) * len(inner) // stretches]
        low, high = min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])
        kept += [low] if low is high else sorted((low, high))
    return [*kept, points[-1]]
