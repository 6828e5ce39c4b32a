"""How long until a page has its list of 5,000 LoRAs, and what does the program notice of the work behind it?

    python benchmarks/library.py [--files 5000] [--tensors 1000] [--rounds 5] [--host] [--write]

- cold: the first answer of a start with an empty database; warm: with one that knows all files.
- delta: the answer to a page that has the list, with the disk looked at again, and within a second of that.
- till described: with its pauses, one file at a time. Nothing is hashed: files are holes here, and a disk's speed
  would be measured.
- lag: an asyncio loop in the same process sleeps 5 ms again and again; how much later it wakes, at rest, while a busy
  loop in Python runs in another thread (what any Python thread costs), and while the library describes or hashes.
- --host: the same answers from a real ComfyUI over HTTP, its own listing of the folder included, and how long
  another small request takes while the library works.

Files are in 20 folders; each fourth has a sidecar and a picture. Headers are true ones of all families.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from _load_files import NAMINGS, header, write
from _measure import machine, table, versions, write_section

from lora_core.architectures import ARCHITECTURES
from lora_core.library import Library, Listing

ROOT = Path(__file__).resolve().parent.parent


def make(folder: Path, files: int, tensors: int) -> None:
    shapes = [header(row, naming, tensors) for row in ARCHITECTURES for naming in NAMINGS]
    for number, shape in zip(range(files), cycle(shapes), strict=False):
        place = folder / f"{number % 20:02}" / f"lora_{number:04}.safetensors"
        place.parent.mkdir(parents=True, exist_ok=True)
        write(place, shape)
        if number % 4 == 0:
            place.with_suffix(".json").write_text(json.dumps({"activation text": "ink style", "notes": "x" * 200}))
            place.with_suffix(".png").write_bytes(b"")


def listing(folder: Path) -> Listing:
    names = [
        os.path.relpath(os.path.join(root, name), folder)
        for root, _, names in os.walk(folder)
        for name in names
        if name.endswith(".safetensors")
    ]
    return Listing(sorted(names), [str(folder)])


def first_answers(listed: Listing, database: Path | None, rounds: int) -> tuple[float, float]:
    """Milliseconds of the first answer of a new library, and of processor time in it, medians."""
    taken: list[float] = []
    busy: list[float] = []
    for _ in range(rounds):
        library = Library(lambda: listed, database, hashing=False)
        library._worker.wake = lambda: None  # what it does next is measured by itself
        start, own = time.perf_counter(), time.thread_time()
        library.answer()
        taken.append(time.perf_counter() - start)
        busy.append(time.thread_time() - own)
        library.close()
    return statistics.median(taken) * 1000, statistics.median(busy) * 1000


def deltas(library: Library, rounds: int) -> tuple[float, float]:
    """Milliseconds of an answer with nothing new: with a look at the disk, and without."""
    looked: list[float] = []
    quick: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        library.refresh(force=True)
        library.answer(library.version)
        looked.append(time.perf_counter() - start)
        start = time.perf_counter()
        library.answer(library.version)
        quick.append(time.perf_counter() - start)
    return statistics.median(looked) * 1000, statistics.median(quick) * 1000


def lag(until: Callable[[], bool]) -> list[float]:
    """Milliseconds by which a loop wakes too late, until something is so."""
    late: list[float] = []

    async def watch() -> None:
        while not until():
            start = time.perf_counter()
            await asyncio.sleep(0.005)
            late.append((time.perf_counter() - start - 0.005) * 1000)

    asyncio.run(watch())
    return late


def spread(late: list[float]) -> list[str]:
    ordered = sorted(late)
    return [f"{ordered[int((len(ordered) - 1) * part)]:.1f}" for part in (0.5, 0.99, 1.0)]


def for_seconds(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def spinning(seconds: float) -> list[float]:
    """The lag beside a thread that never rests."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    late = lag(for_seconds(seconds))
    stop.set()
    thread.join()
    return late


def in_process(options: argparse.Namespace, folder: Path, tensors: int) -> tuple[list[str], list[list[str]]]:
    """Row of the answers, rows of the lags."""
    make(folder / "loras", options.files, tensors)
    listed = listing(folder / "loras")
    cold = first_answers(listed, None, options.rounds)
    database = folder / "library.sqlite"
    library = Library(lambda: listed, database, hashing=False)
    start = time.perf_counter()
    library.answer()
    late = lag(lambda: library._catalogue.next_to_look() is None)
    described = time.perf_counter() - start
    looked, quick = deltas(library, options.rounds * 3)
    library.close()
    warm = first_answers(listed, database, options.rounds)
    again = Library(lambda: listed, database, hashing=False)
    size = len(again.answer()) / 1e6
    again.close()
    cells = [f"{took:.0f} ({busy:.0f})" for took, busy in (cold, warm)]
    cells += [f"{looked:.0f}", f"{quick:.1f}", f"{size:.1f}", f"{described:.0f}"]
    return [str(options.files), str(tensors), *cells], [[f"describing, {tensors} tensors a file", *spread(late)]]


def hashing(folder: Path) -> list[float]:
    """The lag while a file of 3 GB is hashed, a hole."""
    big = folder / "loras" / "big.safetensors"
    with big.open("wb") as handle:
        handle.write((2).to_bytes(8, "little") + b"{}")
        handle.truncate(3 << 30)
    listed = Listing([big.name], [str(big.parent)])
    library = Library(lambda: listed)
    library.refresh()
    late = lag(lambda: library.state()["hashed"] == 1)
    library.close()
    big.unlink()
    return late


def host_rows(options: argparse.Namespace, folder: Path) -> list[list[str]]:
    from host_harness.environment import prepare
    from host_harness.host import ComfyHost

    def timed(host: ComfyHost, path: str) -> tuple[float, bytes]:
        start = time.perf_counter()
        with urllib.request.urlopen(host.url + path) as answer:
            content = answer.read()
        return (time.perf_counter() - start) * 1000, content

    rows: list[list[str]] = []
    base = folder / "host"
    make(base / "models" / "loras", options.files, options.tensors)
    for title in ("cold", "warm"):
        with ComfyHost(prepare(), repository=ROOT, base_directory=base) as host:
            timed(host, "/queue")
            listed, _ = timed(host, "/models/loras")
            rest = [timed(host, "/queue")[0] for _ in range(200)]
            first, content = timed(host, "/loom/loras")
            version = json.loads(content)["version"]
            others: list[float] = []
            end = time.monotonic() + options.seconds
            while time.monotonic() < end:
                others.append(timed(host, "/queue")[0])
                time.sleep(0.01)
            delta, content = timed(host, f"/loom/loras?since={version}")
            state = json.loads(content)["state"]
            found = f"{state['described']}, {state['hashed']}"
            rows.append([title, f"{listed:.0f}", f"{first:.0f}", f"{delta:.0f}", *spread(rest), *spread(others), found])
    return rows


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--tensors", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60, help="of work in the host that is watched")
    parser.add_argument("--host", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    answers: list[list[str]] = []
    hosts: list[list[str]] = []
    lags = [["nothing", *spread(lag(for_seconds(5)))], ["a thread that never rests", *spread(spinning(5))]]
    for tensors in (20, options.tensors):
        with tempfile.TemporaryDirectory() as folder:
            answered, late = in_process(options, Path(folder), tensors)
            answers.append(answered)
            lags += late
            if tensors == options.tensors:
                lags.append(["hashing 3 GB", *spread(hashing(Path(folder)))])
                hosts = host_rows(options, Path(folder)) if options.host else []
    head = ["files", "tensors", "cold, ms (CPU)", "warm, ms (CPU)", "delta, ms", "delta again, ms", "answer, MB"]
    parts = [
        f"`{shlex.join(['python', 'benchmarks/library.py', *arguments])}`",
        f"Medians of {options.rounds} starts. {machine()}; {versions('torch', 'safetensors')}.",
        "Answers of `GET /loom/loras`, without HTTP and the host's listing of names:",
        table([*head, "till described, s"], answers),
        "How much too late an asyncio loop in the same process wakes, ms:",
        table(["beside it", "median", "99 %", "worst"], lags),
    ]
    if hosts:
        head = ["start", "names by the host, ms", "first answer, ms", "delta, ms"]
        for when in ("before", "during"):
            head += [f"/queue {when}: median, ms", "99 %", "worst"]
        parts += [
            f"In a real ComfyUI over HTTP; `/queue` is asked for {options.seconds:g} s while the library works:",
            table([*head, "described, hashed by then"], hosts),
        ]
    body = "\n\n".join(parts)
    print(body)
    if options.write:
        write_section("The library: a list of 5,000 LoRAs", body)


if __name__ == "__main__":
    main(sys.argv[1:])
