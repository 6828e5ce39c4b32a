"""loss.png: the loss with its running mean, the validation, and the learning rates, one below the other."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...io.atomic import atomic_file

Axes = Any  # matplotlib's types are not complete

Series = tuple[Sequence[int], Sequence[float]]

_LOSS, _RATE, _LEAKAGE, _HELD_OUT = "loss", "rate ", "leakage", ("validation", "train")
# The mean covers about this part of the points: the noise of single timesteps is larger than what is learned.
_WINDOW = 0.04


def plot(path: Path, title: str, series: Mapping[str, Series]) -> None:
    """Draw the curves.

    Args:
        path: of the PNG.
        title: name of the LoRA.
        series: ``loss``, ``rate <group>``, ``leakage``, ``validation ...`` and ``train ...`` -> (steps, values); others
            are not drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = _panels(series)
    heights = [3.0 if draw in (_loss, _validation) else 1.6 for draw, _ in shown]
    figure = Figure(figsize=(9, 0.6 + sum(heights)), dpi=110, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    axes: Any = figure.subplots(len(shown), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for (draw, curves), area in zip(shown, axes, strict=True):
        draw(area, curves)
        area.grid(alpha=0.3)
    axes[0].set_title(title)
    axes[-1].set_xlabel("step")
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    with atomic_file(path, size=buffer.tell(), overwrite=True) as file:
        file.write(buffer.getvalue())


def _panels(
    series: Mapping[str, Series],
) -> list[tuple[Callable[[Axes, Mapping[str, Series]], None], dict[str, Series]]]:
    """What draws a panel, and what is in it."""
    panels = [(_loss, _LOSS), (_validation, _HELD_OUT), (_leakage, _LEAKAGE), (_rates, _RATE)]
    found = [(draw, {name: one for name, one in series.items() if name.startswith(begin)}) for draw, begin in panels]
    return [(draw, curves) for draw, curves in found if curves]


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last ``window`` values, of those that there are at the start; without those that are not finite.

    >>> running_mean([1.0, 2.0, 3.0, 4.0], 2)
    [1.0, 1.5, 2.5, 3.5]
    """
    from math import isfinite, nan

    means: list[float] = []
    total, count = 0.0, 0
    for index, value in enumerate(values):
        # What goes out is what came in, so the sum is off by rounding alone, far below what a plot shows.
        gone = values[index - window] if index >= window else nan
        for one, sign in ((value, 1), (gone, -1)):
            if isfinite(one):
                total, count = total + sign * one, count + sign
        means.append(total / count if count else nan)
    return means


def _loss(area: Axes, curves: Mapping[str, Series]) -> None:
    steps, values = curves[_LOSS]
    window = max(1, min(200, round(len(values) * _WINDOW)))
    area.plot(steps, values, color="tab:blue", alpha=0.3, linewidth=0.8, label="each step")
    area.plot(steps, running_mean(values, window), color="tab:blue", linewidth=1.8, label=f"mean of {window}")
    area.set_ylabel("training loss")
    area.legend(loc="upper right")


def _validation(area: Axes, curves: Mapping[str, Series]) -> None:
    """Means as strong lines; those of single timesteps are thin, with their name at the end of the first set's."""
    named: set[str] = set()
    for name, (steps, values) in curves.items():
        kind, _, timestep = name.partition(" ")
        colour = "tab:blue" if kind == _HELD_OUT[0] else "tab:orange"
        if not timestep:
            area.plot(steps, values, marker=".", linewidth=1.8, color=colour, label=name)
            continue
        area.plot(steps, values, linewidth=0.8, alpha=0.6, linestyle="--", color=colour)
        if timestep not in named:
            at, beside = (steps[-1], values[-1]), (4, 0)
            area.annotate(timestep, at, beside, textcoords="offset points", fontsize="x-small", va="center")
            named.add(timestep)
    area.set_ylabel("loss at fixed noise")
    area.legend(loc="upper right", fontsize="small")


def _leakage(area: Axes, curves: Mapping[str, Series]) -> None:
    for name, (steps, values) in curves.items():
        area.plot(steps, values, marker=".", label=name)
    area.set_ylabel("leakage")
    if len(curves) > 1:
        area.legend(loc="upper left", fontsize="small")


def _rates(area: Axes, curves: Mapping[str, Series]) -> None:
    for name, (steps, values) in curves.items():
        area.plot(steps, values, label=name.removeprefix(_RATE))
    positive = [value for _, values in curves.values() for value in values if value > 0]
    if positive and max(positive) > 30 * min(positive):
        area.set_yscale("log")
    area.set_ylabel("learning rate")
    area.legend(loc="lower right", fontsize="small")
