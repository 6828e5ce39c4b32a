"""What do broken and hostile files do? Files mutated from good ones, each opened, mapped and reported.

    python benchmarks/fuzz.py [--files 10000] [--seed 0] [--write]
    nox -s bench -- fuzz

The good files are our own: ten adapter types and namings as safetensors, and pickles (zip and elder). Each number makes
its mutation (``tests/fuzz/mutate.py``): half have bytes changed, which the header mostly shows; half are written anew
with other names, shapes, dtypes, values and metadata. Each is run in one of a few worker processes with a limit on
memory and on time: opened, mapped, reported, its numbers checked and its changes applied to weights. Outcomes:

- loaded: a report;
- error: one ``LoomError`` of one line;
- crash: any other exception, or the end of the process; hang: more than ``HANG`` seconds; memory: over the limit.

The last three are faults, and the run ends with status 1. Memory is the growth of the worker's peak over all its files,
which were loaded one after the other.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shlex
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # behind the rest: a ComfyUI that is on the path keeps its own nodes.py
sys.path.append(str(ROOT / "tests" / "fuzz"))

import mutate  # noqa: E402
import seeds  # noqa: E402
from _measure import machine, table, versions, write_section  # noqa: E402

WORKERS = 2
HANG = 30.0  # seconds for one file; the slowest takes a few hundredths of one on a quiet machine
GROWTH = 512 << 20  # bytes of address space that a worker may add to what torch and the tables of families take
REBUILT = "rebuilt with other content"
OUTCOMES = ("loaded", "error", "crash", "hang", "memory")


def sources() -> dict[str, bytes]:
    """Kind -> a good file."""
    good = {f"safetensors, {kind}": seeds.safetensors(kind) for kind in seeds.KINDS}
    tensors = seeds.tensors("kohya")
    good["pickle, zip"] = seeds.pickled(tensors)
    good["pickle, in a table"] = seeds.pickled({"state_dict": seeds.tensors("diffusers"), "epoch": 3, "lr": [1e-4]})
    good["pickle, elder"] = seeds.pickled(tensors, zipped=False)
    return good


def try_file(path: Path) -> tuple[str, str]:
    """Outcome and what was said."""
    import targets

    from lora_core.errors import LoomError

    try:
        targets.use(path)
    except LoomError as error:
        one_line = "\n" not in error.message and len(error.message) <= 2_000
        return ("error", type(error).__name__) if one_line else ("crash", "a message of many lines")
    except MemoryError:
        return "memory", "MemoryError"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "crash", f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"[:300]
    return "loaded", ""


def worker(pipe: Connection, folder: str) -> None:
    """Gets (number, bytes), answers (outcome, what was said, seconds, peak memory in kB)."""
    import torch

    torch.set_num_threads(1)
    path = Path(folder, "lora.safetensors")
    for data in sources().values():  # imports and tables of families are no growth
        path.write_bytes(data)
        outcome = try_file(path)
        assert outcome[0] == "loaded", outcome
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + GROWTH, in_use + GROWTH))
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    while (data := pipe.recv()) is not None:
        path.write_bytes(data)
        start = time.perf_counter()
        outcome, said = try_file(path)
        seconds = time.perf_counter() - start
        pipe.send((outcome, said, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


class Worker:
    """A process that is replaced when a file ends it or holds it up."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.growth = 0
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=worker, args=(other, self.folder), daemon=True)
        self.process.start()
        other.close()
        self.before: int = self.pipe.recv()
        self.sent = 0.0

    def send(self, data: bytes) -> None:
        self.pipe.send(data)
        self.sent = time.perf_counter()

    def answer(self) -> tuple[str, str, float]:
        """Of the file that was sent."""
        if not self.pipe.poll(max(0.0, HANG - (time.perf_counter() - self.sent))):
            self.end()
            self.start()
            return "hang", f"more than {HANG:g} seconds", HANG
        try:
            outcome, said, seconds, peak = self.pipe.recv()
        except EOFError:
            self.process.join()
            said = f"the process ended with {self.process.exitcode}"
            self.start()
            return "crash", said, 0.0
        self.growth = max(self.growth, peak - self.before)
        return outcome, said, seconds

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(arguments)
    good = sources()
    # As many with a sound header as without.
    kinds, others = [*good, *[REBUILT] * len(good)], list(good.values())

    def make(number: int) -> bytes:
        if kinds[number % len(kinds)] == REBUILT:
            return mutate.rebuilt(options.seed + number)
        return mutate.mutated(good[kinds[number % len(kinds)]], options.seed + number, others)

    outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    errors: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder, str(number)) for number in range(WORKERS)]
        for place in folders:
            place.mkdir()
        workers = [Worker(str(place)) for place in folders]
        for first in range(0, options.files, WORKERS):
            batch = range(first, min(first + WORKERS, options.files))
            made = [make(number) for number in batch]
            for one, data in zip(workers, made, strict=False):
                one.send(data)
            for number, one in zip(batch, workers, strict=False):
                kind = kinds[number % len(kinds)]
                outcome, said, taken = one.answer()
                outcomes[kind][outcome] += 1
                seconds[kind].append(taken)
                if outcome == "error":
                    errors[said] += 1
                elif outcome != "loaded":
                    faults.append(f"mutation {options.seed + number} of {kind}: {outcome}: {said}")
                    print(faults[-1], file=sys.stderr, flush=True)
        growth = max(one.growth for one in workers)
        for one in workers:
            one.end()
    largest = max(map(len, others))
    body = report(options, arguments, outcomes, seconds, errors, growth / 1024, largest / 1024)
    print(body)
    if options.write:
        write_section("Broken and hostile files", body)
    return 1 if faults else 0


def report(
    options: argparse.Namespace,
    arguments: Sequence[str],
    outcomes: dict[str, Counter[str]],
    seconds: dict[str, list[float]],
    errors: Counter[str],
    growth: float,
    largest: float,
) -> str:
    rows: list[list[str]] = []
    whole: Counter[str] = sum(outcomes.values(), Counter())
    all_seconds = [one for taken in seconds.values() for one in taken]
    columns: list[tuple[str, Counter[str], list[float]]] = [
        *((kind, counts, seconds[kind]) for kind, counts in outcomes.items()),
        ("all", whole, all_seconds),
    ]
    for kind, counts, taken in columns:
        numbers = [str(counts[outcome]) for outcome in OUTCOMES]
        mean, worst = sum(taken) / max(1, len(taken)), max(taken, default=0.0)
        rows.append([kind, str(len(taken)), *numbers, f"{mean * 1000:.1f}", f"{worst * 1000:.0f}"])
    kinds_of_errors = ", ".join(f"{name} {count}" for name, count in errors.most_common())
    head: list[Any] = ["made from", "files", *OUTCOMES, "mean, ms", "worst, ms"]
    return "\n".join(
        [
            f"`{shlex.join(['python', 'benchmarks/fuzz.py', *arguments])}`",
            "",
            f"{options.files:,} mutated files, the largest original {largest:.0f} kB; opened, mapped, reported, "
            f"checked and applied in {WORKERS} processes, each with {GROWTH >> 20} MB of address space beyond what it "
            "started with. A process "
            f"grew by {growth:.0f} MB at most, over all its files. Errors: {kinds_of_errors}.",
            f"{machine()}; {versions('torch', 'safetensors')}.",
            "",
            table(head, rows),
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
