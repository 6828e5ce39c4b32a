"""One setting, several values: train with each, and see what it costs and what it brings in one table.

    python -m examples.compare examples/compare.toml --over network.rank 2 4 8
    python -m examples.compare examples/compare.toml --over network.targets attention attention+ff all 'regex:attn2'

Each run is as `loom train` would do it, with a name of its own: an interrupt loses nothing, and the same command goes
on. Losses are compared by the settings' validation, which has the same noise for all.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lora_core.cli.train_terminal import Interrupt, TerminalWatcher
from lora_core.errors import LoomError
from lora_core.train.config import TrainConfig, load_config
from lora_core.train.events import Watcher, Watchers
from lora_core.train.loop import train


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one value.

    Args:
        value: as it was given.
        parameters: that were trained.
        bytes: of the file.
        loss: mean over the last steps.
        before, after: measured by validation; ``before`` is empty where an earlier call began the run.
        seconds: of the steps.
    """

    value: str
    parameters: int
    bytes: int
    loss: float
    before: Mapping[str, float]
    after: Mapping[str, float]
    seconds: float


class First(Watcher):
    """Remembers the first measurement of a run."""

    def __init__(self) -> None:
        self.losses: Mapping[str, float] = {}

    def validated(self, step: int, losses: Mapping[str, float]) -> None:
        self.losses = self.losses or losses


def settings(config: Path | None, key: str, value: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """The settings with one value; what is written is named after it."""
    given = [*overrides, f"{key}={value}"]
    base = load_config(config, given)
    name = f"{base.output.name}-{key.rpartition('.')[2]}-{re.sub(r'[^A-Za-z0-9.+-]+', '_', value)}"
    # Caches go by content, so all runs can have one.
    cache = base.data.cache or str(Path(base.output.folder) / f"{base.output.name}.cache")
    return load_config(config, [*given, f"output.name={json.dumps(name)}", f"data.cache={json.dumps(cache)}"])


def compare(
    config: Path | None, key: str, values: Sequence[str], overrides: Sequence[str] = (), watcher: Watcher | None = None
) -> list[Row]:
    """Train with each value, one after another; wrong settings are told before the first run.

    Raises:
        KeyboardInterrupt: the watcher cancelled.
    """
    rows: list[Row] = []
    for value, one in [(value, settings(config, key, value, overrides)) for value in values]:
        first = First()
        result = train(one, watcher=Watchers([first, *([watcher] if watcher else [])]))
        if not result.finished or result.path is None:
            raise KeyboardInterrupt
        report: Mapping[str, Any] = result.report
        size = result.path.stat().st_size
        rows.append(
            Row(value, report["parameters"], size, result.loss, first.losses, report["validation"], report["seconds"])
        )
    return rows


def table(key: str, rows: Sequence[Row]) -> Table:
    """A line a value; what validation gave before the first step is the same for all, and stands above."""
    measured = [name for name in ("validation", "train", "leakage") if any(name in row.after for row in rows)]
    before = {name: row.before[name] for row in rows for name in measured if name in row.before}
    told = ", ".join(f"{name} {loss:.4f}" for name, loss in before.items())
    made = Table(title=f"{key}{f' (before training: {told})' if told else ''}", min_width=80)
    for column in (key, "parameters", "file", "loss", *measured, "seconds"):
        made.add_column(column, justify="left" if column == key else "right", no_wrap=True)
    for row in rows:
        losses = [f"{row.after[name]:.4f}" if name in row.after else "" for name in measured]
        size = f"{row.bytes / 1e6:.2f} MB"
        made.add_row(row.value, f"{row.parameters:,}", size, f"{row.loss:.4f}", *losses, f"{row.seconds:.0f}")
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config", type=Path, metavar="CONFIG.toml")
    parser.add_argument("--over", nargs="+", required=True, metavar=("KEY VALUE", "VALUE"), help="setting and values")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for `loom train`")
    args = parser.parse_args()
    key, *values = args.over
    interrupt = Interrupt()
    watcher = TerminalWatcher(interrupt)
    try:
        with watcher.showing(), interrupt.listening():
            rows = compare(args.config, key, values, args.set, watcher)
    except LoomError as error:
        print(f"compare: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("compare: stopped; the same command goes on", file=sys.stderr)
        return 130
    console = Console()
    console.print(table(key, rows), width=None if console.is_terminal else 120)
    return 0


if __name__ == "__main__":
    sys.exit(main())
