"""The curves of a run as files: loss.csv, loss.png, and logs for TensorBoard.

loss.csv has a row for each number, ``step,name,value``: ``loss``, ``rate denoiser``, ``validation``, ... A run that
goes on from a step drops the rows after it and continues the file.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...io.atomic import atomic_file
from ..config import OutputSection
from ..events import Progress, Sampled, Watcher
from .folder import RunFolder
from .pictures import remove_samples, save_samples
from .plotting import Series, plot

HEADER = ("step", "name", "value")
LOSS = "loss"
RATE = "rate "
Row = tuple[int, str, float]


class FileWatcher(Watcher):
    """Writes curves and samples of a run into its folder.

    Args:
        folder: of the run.
        output: what is wanted.
        start: finished steps of the state that the run goes on from, 0 for a new one; later rows and samples are
            dropped.
    """

    def __init__(self, folder: RunFolder, output: OutputSection, start: int = 0) -> None:
        self.folder, self.output = folder.make(), output
        self.series: dict[str, dict[int, float]] = {}
        rows = [row for row in read_rows(folder.csv) if row[0] <= start] if start else []
        for step, name, value in rows:
            self.series.setdefault(name, {})[step] = value
        _rewrite(folder.csv, rows)
        remove_samples(folder, start)
        self._file = folder.csv.open("a", encoding="utf-8", newline="")
        self._board = _board(folder, start) if output.tensorboard else None

    def progress(self, progress: Progress) -> None:
        rows = [(step, LOSS, loss) for step, loss in progress.losses]
        rows += [(progress.step, f"{RATE}{name}", rate) for name, rate in progress.rates.items()]
        rows += [(progress.step, name, value) for name, value in progress.extra.items()]
        self._add(rows)

    def validated(self, step: int, losses: Mapping[str, float]) -> None:
        self._add([(step, name, value) for name, value in losses.items()])
        self.draw()

    def sampled(self, sampled: Sampled) -> None:
        save_samples(self.folder, sampled)
        if self._board is not None:
            import numpy

            for number, picture in enumerate(sampled.pictures):
                pixels = numpy.asarray(picture.convert("RGB"))
                self._board.add_image(f"sample/{number}", pixels, sampled.step, dataformats="HWC")
            self._board.flush()

    def saved(self, path: Path, step: int) -> None:
        self.draw()

    def draw(self) -> None:
        """loss.png of all that is known."""
        if self.output.plot and self.series.get(LOSS):
            plot(self.folder.plot, self.folder.name, series_of(self.series))

    def close(self) -> None:
        """At the end of a run, whatever ended it."""
        self.draw()
        self._file.close()
        if self._board is not None:
            self._board.close()

    def _add(self, rows: Sequence[Row]) -> None:
        csv.writer(self._file, lineterminator="\n").writerows((step, name, repr(value)) for step, name, value in rows)
        self._file.flush()
        for step, name, value in rows:
            self.series.setdefault(name, {})[step] = value
            if self._board is not None and math.isfinite(value):
                self._board.add_scalar(name.replace(" ", "/", 1), value, step)
        if self._board is not None:
            self._board.flush()


def read_rows(path: Path) -> list[Row]:
    """The rows of a loss.csv; a last line that a kill cut off is left out. None where there is no file."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    rows: list[Row] = []
    for row in csv.reader(io.StringIO(whole)):
        with suppress(ValueError):  # the header, and what is no row
            step, name, value = row
            rows.append((int(step), name, float(value)))
    return rows


def series_of(values: Mapping[str, Mapping[int, float]]) -> Mapping[str, Series]:
    """name -> (steps, values) in the order of steps."""
    return {name: tuple(zip(*sorted(points.items()), strict=True)) for name, points in values.items() if points}  # pyright: ignore[reportReturnType]


def _rewrite(path: Path, rows: Iterable[Row]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows((step, name, repr(value)) for step, name, value in rows)
    content = text.getvalue().encode()
    with atomic_file(path, size=len(content), overwrite=True) as file:
        file.write(content)


def _board(folder: RunFolder, start: int) -> Any:
    """TensorBoard's writer; what it showed after ``start`` it forgets. A new run takes the old logs away."""
    import shutil

    from torch.utils.tensorboard.writer import SummaryWriter

    if not start:
        shutil.rmtree(folder.logs, ignore_errors=True)
    return SummaryWriter(str(folder.logs), purge_step=start + 1 if start else None)
