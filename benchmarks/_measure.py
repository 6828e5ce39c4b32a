"""What every benchmark shares: interleaved timing, a description of the machine, tables, RESULTS.md.

Contenders take turns on one portion of the work at a time, so that noise of the machine (other processes, clock
frequency) meets all of them alike; the median over the rounds is kept. Ratios are to be trusted more than seconds.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
TITLE = "# Measured\n\nEach table says how it was made. Seconds depend on the machine and its load, ratios much less.\n"


def interleave(
    contenders: Mapping[str, Callable[[int], None]],
    portions: int,
    rounds: int,
    settle: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each contender for each portion, the median of ``rounds``.

    Args:
        contenders: name -> function of the number of the portion.
        portions: how many portions there are.
        rounds: how often each contender does each portion; one more round before is not counted.
        settle: waits for what a device still computes.
        clock: ``time.process_time`` leaves out what other processes took of a busy machine; it is for one thread,
            as threads that wait for each other are busy too.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for portion in range(portions):
        taken: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds + 1):
            first = number % len(names)  # nobody is always the one who finds the cache warm
            for name in names[first:] + names[:first]:
                settle()
                start = clock()
                contenders[name](portion)
                settle()
                if number:
                    taken[name].append(clock() - start)
        for name in names:
            seconds[name].append(statistics.median(taken[name]))
    return seconds


def machine(device: str = "cpu") -> str:
    """The processor (and the accelerator), its threads in use, and the load of the machine."""
    import torch

    words = [f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used"]
    if device.startswith("cuda"):
        words.append(torch.cuda.get_device_name(device))
    if hasattr(os, "getloadavg"):
        words.append(f"load average {os.getloadavg()[0]:.1f} when measured")
    return ", ".join([*words, f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"])


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or "unknown processor"


def peak_memory() -> float:
    """Most bytes that this process held. On Linux not getrusage's: that begins with what the parent held then."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    if found:
        return float(found[1]) * 1024
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def versions(*packages: str) -> str:
    """``torch 2.13.0, peft 0.21.2``: of those that are installed."""
    found: list[str] = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table with aligned columns, numbers to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    title = "| " + " | ".join(cell.rjust(width) for cell, width in zip(head, widths, strict=True)) + " |"
    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
    return "\n".join([title, rule, *lines])


def write_section(title: str, body: str) -> None:
    """Put a section into RESULTS.md, in the place of the one with the same title."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else TITLE
    section = f"## {title}\n\n{body.strip()}\n"
    old = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if old.search(text):
        text = old.sub(lambda _: section + "\n", text)
    else:
        text = f"{text.rstrip()}\n\n{section}"
    RESULTS.write_text(text.rstrip() + "\n", encoding="utf-8")
