"""What ``loom train`` shows on the way: bars on a terminal, plain lines where output goes to a file or another program.

All of it is on standard error; standard output is for the result.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from ..train.events import Progress, Sampled, Watcher
from ..untrusted import clean

# A terminal sends Ctrl-C to all processes of a command, and launchers send it on to theirs: two within this many
# seconds are one.
SAME_SIGNAL = 0.5


class Interrupt:
    """Whether the user asked a run to stop. The first Ctrl-C or polite kill asks, a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self._since = 0.0

    @contextmanager
    def listening(self) -> Generator[None, None, None]:
        """Signals ask instead of ending the process, for as long as the block runs."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._ask) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._since = True, now
            # Nothing else is safe inside a signal handler: the stream may be in the middle of a write.
            os.write(2, b"\nloom: stopping after this step and saving; Ctrl-C once more stops without saving\n")
        elif number == signal.SIGINT and now - self._since > SAME_SIGNAL:
            raise KeyboardInterrupt


class QuietWatcher(Watcher):
    """For all processes but the main one: it passes on that the user asks to stop, and says nothing."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt

    def cancelled(self) -> bool:
        return self._interrupt.asked


class TerminalWatcher(QuietWatcher):
    """Bars with loss, speed, memory and time left; on what is no terminal a line for each look at the loss."""

    def __init__(self, interrupt: Interrupt, console: Console | None = None) -> None:
        super().__init__(interrupt)
        # A line of a log is not folded: whoever reads it back looks for whole lines.
        self._console = console or Console(stderr=True, soft_wrap=not sys.stderr.isatty(), highlight=False)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._stage = ""

    @contextmanager
    def showing(self) -> Generator[None, None, None]:
        """Bars are drawn while the block runs."""
        with self._bars:
            yield

    def stage(self, what: str, done: int, total: int) -> None:
        if not self._console.is_terminal:
            if what != self._stage:
                self._say(f"{what}{f' ({total})' if total > 1 else ''}")
            self._stage = what
        elif done < total:
            self._bar(what, done, total, "")
        elif what in self._tasks:
            self._bars.remove_task(self._tasks.pop(what))

    def progress(self, progress: Progress) -> None:
        numbers = [
            f"loss {progress.loss:.4f}",
            f"{progress.steps_per_second:.2f} it/s",
            f"memory {memory(progress.memory)}",
            f"left {duration(progress.seconds_left)}",
        ]
        if self._console.is_terminal:
            self._bar("training", progress.step, progress.steps, "  ".join(numbers))
        else:
            rates = [f"rate {rate:.3g} ({name})" for name, rate in progress.rates.items()]
            self._say("  ".join([f"step {progress.step}/{progress.steps}", *numbers, *rates]))

    def validated(self, step: int, losses: Mapping[str, float]) -> None:
        # Each timestep's is in the curves.
        shown = {name: loss for name, loss in losses.items() if " t=" not in name}
        self._say(f"step {step}: {', '.join(f'{name} {loss:.4f}' for name, loss in shown.items())}")

    def sampled(self, sampled: Sampled) -> None:
        self._say(f"step {sampled.step}: {len(sampled.pictures)} sample{'s' if len(sampled.pictures) != 1 else ''}")

    def saved(self, path: Path, step: int) -> None:
        self._say(f"step {step}: saved {path}")

    def warned(self, message: str) -> None:
        self._say(f"warning: {message}")

    def noted(self, message: str) -> None:
        self._say(message)

    def _bar(self, name: str, done: int, total: int, numbers: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(escape(clean(name)), total=total, numbers=numbers)
        self._bars.update(self._tasks[name], completed=done, total=total, numbers=numbers)

    def _say(self, text: str) -> None:
        self._console.print(escape(" ".join(clean(text).split("\n"))))


def memory(bytes: int) -> str:
    """``5.2 GiB``."""
    return f"{bytes / 2**30:.1f} GiB"


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``; ``?`` while nobody knows."""
    if not 0 <= seconds < 1e9:  # NaN and infinity too
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
