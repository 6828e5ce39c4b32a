"""What commands print: JSON for programs, tables for people, a progress bar on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Generator, Iterable, Mapping

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from ..untrusted import clean


def print_json(document: object) -> None:
    """One JSON document on standard output; ASCII, so that no terminal's encoding can refuse it."""
    json.dump(document, sys.stdout, indent=2)
    print()


def print_table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """A table of names and values; they may come from a stranger's file."""
    table = Table(title=escape(clean(title)), title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(escape(clean(name)), escape(clean(value)))
    Console().print(table)


def counts(numbers: Mapping[str, int]) -> str:
    """``{"denoiser": 192, "text_encoder": 72}`` -> ``denoiser 192, text_encoder 72``."""
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


@contextlib.contextmanager
def progress_bar(label: str, *, bytes: bool = True) -> Generator[Callable[[int, int], None], None, None]:
    """A bar of bytes or of things, on a terminal only; the block gets a function of (done, all)."""
    console = Console(stderr=True)
    amount = (DownloadColumn(), TransferSpeedColumn()) if bytes else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(escape(clean(label)), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
