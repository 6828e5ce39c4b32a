"""Runs that are on disk, for whoever shows them: read without the engine, so that looking at them costs nothing.

A run is a folder ``<name>.run`` (``output.folder``). It may still be written to, be half of one, or be damaged: what
can be read is told, and ``fault`` says what cannot.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

from .thinning import thinned

ENDING = ".run"
CSV, CONFIG, SAMPLES, STATE = "loss.csv", "config.toml", "samples", "state"
LOSS, RATE, VALIDATION = "loss", "rate ", "validation"
# Points of a curve that is handed out; a screen has not more.
POINTS = 2000
# Steps whose mean is "the loss" of a run: that of one step is mostly noise.
_LAST = 20
# Bytes at the end of loss.csv that hold so many rows.
_TAIL = 8192
# Folders below each other, and runs, that are looked for.
_DEPTH, _MOST = 8, 5000
_SAMPLE = re.compile(r"(.+)-(\d{6,})-(\d+)\.png")
_STEP = re.compile(r"step-(\d+)(?:-\d+)?")

Point = tuple[int, float]
Curves = dict[str, list[Point]]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list shows of a run.

    Args:
        run: name with its folders, ``styles/ink``.
        step, steps: done and in all; 0 in all where nothing says it.
        finished: whether the state of the last step is there.
        modified: seconds.
        loss: mean over the last steps; None where there were none.
        samples: moments at which pictures were drawn.
        preview: the newest picture of the first prompt.
        fault: what cannot be read, in one line; "" if all can.
    """

    run: str
    step: int
    steps: int
    finished: bool
    modified: float
    loss: float | None
    samples: int
    preview: Path | None
    fault: str = ""

    @classmethod
    def begun(cls, run: str) -> Summary:
        """Of a run that has no folder yet."""
        return cls(run, 0, 0, False, time.time(), None, 0, None)


@dataclass(frozen=True, slots=True)
class History:
    """All of a run.

    Args:
        summary: as the list has it.
        config: settings, with names of files in the place of paths.
        losses, validation, rates: curves of (step, value), thinned; values that are not finite are left out.
        samples: step -> number of the prompt -> picture.
    """

    summary: Summary
    config: Json
    losses: list[Point]
    validation: list[Point]
    rates: Curves
    samples: Mapping[int, Mapping[int, Path]]

    @classmethod
    def begun(cls, run: str) -> History:
        """Of a run that has no folder yet."""
        return cls(Summary.begun(run), {}, [], [], {}, {})


def run_folders(root: Path) -> dict[str, Path]:
    """name -> folder, of all runs below a folder."""
    return dict(islice(_found(root, "", _DEPTH), _MOST))


def summary(folder: Path, run: str) -> Summary:
    """What a list shows; of the curve only its end is read."""
    return _summary(folder, run, *_config(folder))


def history(folder: Path, run: str) -> History:
    """All that is known of a run."""
    config, fault = _config(folder)
    curves = read_curves(folder / CSV)
    return History(
        _summary(folder, run, config, fault),
        bare(config),
        thinned(curves.pop(LOSS, []), POINTS),
        thinned(curves.pop(VALIDATION, []), POINTS),
        {name.removeprefix(RATE): thinned(one, POINTS) for name, one in curves.items() if name.startswith(RATE)},
        samples_of(folder),
    )


def read_curves(path: Path) -> Curves:
    """name -> (step, value) in the order of steps; empty where there is no file.

    A last line that is being written, and what is no row, is left out.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return _curves(text[: text.rfind("\n") + 1])


def samples_of(folder: Path) -> dict[int, dict[int, Path]]:
    """step -> number of the prompt -> picture."""
    found: dict[int, dict[int, Path]] = {}
    for path in _inside(folder / SAMPLES):
        if match := _SAMPLE.fullmatch(path.name):
            found.setdefault(int(match[2]), {})[int(match[3])] = path
    return {step: dict(sorted(found[step].items())) for step in sorted(found)}


def prompt_of(picture: Path) -> str:
    """The prompt that a sample was drawn with; "" where it does not say."""
    from PIL import Image

    try:
        opened: Image.Image = Image.open(picture, formats=["PNG"])
        with opened:
            said: Any = opened.info  # pyright: ignore[reportUnknownMemberType]
            return str(said.get("prompt", ""))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""


def bare(value: Any) -> Any:
    """The same with the last part of each absolute path: what a machine's folders are is nobody's business.

    >>> bare({"folder": "/home/me/pictures", "steps": 3})
    {'folder': 'pictures', 'steps': 3}
    """
    if isinstance(value, Mapping):
        return {str(key): bare(one) for key, one in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list):
        return [bare(one) for one in cast("list[Any]", value)]
    if isinstance(value, str):
        windows = PureWindowsPath(value)
        if windows.drive or value.startswith("\\"):
            return windows.name
        return PurePosixPath(value).name if value.startswith(("/", "~/")) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int) or value is None else str(value)


def _found(folder: Path, prefix: str, depth: int) -> Iterator[tuple[str, Path]]:
    for path in _inside(folder):
        if not os.path.isdir(path):
            continue
        name = prefix + path.name
        if path.name.endswith(ENDING):
            if path.name != ENDING and any(os.path.exists(path / part) for part in (CSV, CONFIG, SAMPLES, STATE)):
                yield name.removesuffix(ENDING), path
        elif depth and not path.is_symlink():
            yield from _found(path, f"{name}/", depth - 1)


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # it is not there, or not ours to read
        return []


def _summary(folder: Path, run: str, config: Json, fault: str) -> Summary:
    steps = _section(config, "run").get("steps", 0)
    steps = steps if isinstance(steps, int) else 0
    samples = samples_of(folder)
    last = _last_losses(folder / CSV)
    state = max((int(match[1]) for path in _inside(folder / STATE) if (match := _STEP.fullmatch(path.name))), default=0)
    step = max(state, last[-1][0] if last else 0)
    return Summary(
        run=run,
        step=step,
        steps=steps,
        finished=0 < steps <= state,
        modified=_modified(folder, samples),
        loss=sum(loss for _, loss in last) / len(last) if last else None,
        samples=len(samples),
        preview=_preview(samples),
        fault=fault,
    )


def _config(folder: Path) -> tuple[Json, str]:
    from .config.toml import read_toml  # with it come the engine's settings, which not even a list needs before

    try:
        return read_toml((folder / CONFIG).read_text(encoding="utf-8")), ""
    except FileNotFoundError:
        return {}, f"{CONFIG} is not there"
    except (OSError, ValueError, RecursionError):
        return {}, f"{CONFIG} cannot be read"


def _section(config: Json, name: str) -> Json:
    found = config.get(name)
    return cast("Json", found) if isinstance(found, dict) else {}


def _curves(text: str) -> Curves:
    found: dict[str, dict[int, float]] = {}
    for line in text.splitlines():
        step, _, rest = line.partition(",")
        name, _, value = rest.rpartition(",")
        try:
            number, at = float(value), int(step)
        except ValueError:  # the header, and what is no row
            continue
        if name and math.isfinite(number):
            found.setdefault(name, {})[at] = number
    return {name: sorted(points.items()) for name, points in found.items()}


def _last_losses(path: Path) -> Sequence[Point]:
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - _TAIL)
            file.seek(start)
            raw = file.read()
    except OSError:
        return []
    text = raw.decode("utf-8", errors="replace")
    first = text.find("\n") + 1 if start else 0  # half a line
    return _curves(text[first : text.rfind("\n") + 1]).get(LOSS, [])[-_LAST:]


def _modified(folder: Path, samples: Mapping[int, Mapping[int, Path]]) -> float:
    places = [folder, folder / CSV, folder / STATE, *([p] if (p := _preview(samples)) else [])]
    found: list[float] = []
    for place in places:
        try:
            found.append(place.stat().st_mtime)
        except OSError:
            continue
    return max(found, default=0.0)


def _preview(samples: Mapping[int, Mapping[int, Path]]) -> Path | None:
    if not samples:
        return None
    newest = samples[max(samples)]
    return newest[min(newest)]
