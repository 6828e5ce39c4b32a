"""What does the pack cost ComfyUI's start? Wanted: less than 0.15 s.

    python benchmarks/start.py [--rounds 15] [--write]      (with ComfyUI on PYTHONPATH)
    nox -s bench -- start

Each start is a fresh Python that has imported torch and what of ComfyUI there is when packs are loaded:

- imports: the pack's module and its entry point, which imports the nodes and what of the library they name at once;
- nodes: what ComfyUI asks for then, files and routes registered, every node's schema.

The first start also compiles the pack's files; all others find them compiled, as a user's do. CPU time of one thread,
as one process waits for no other; the least of all rounds is the time without what disturbed it, the median has it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _measure import machine, table, versions, write_section

ONCE = Path(__file__).with_name("_start_once.py")
TITLE = "Start: what the pack adds to ComfyUI's"


def start(compiled: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, str(ONCE), compiled], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def row(title: str, runs: Sequence[dict[str, float]], *parts: str) -> list[str]:
    seconds = [sum(run[part] for part in parts) for run in runs]
    return [title, *(f"{value:.3f}" for value in (min(seconds), statistics.median(seconds), max(seconds)))]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as compiled:
        first = start(compiled)
        told = [start(compiled) for _ in range(options.rounds)]
    runs = [run["taken"] for run in told]
    rows = [
        row("imports", runs, "imports"),
        row("nodes", runs, "nodes"),
        row("the pack", runs, "imports", "nodes"),
        row("the pack, first start", [first["taken"]], "imports", "nodes"),
        row("torch and ComfyUI before it", runs, "host"),
    ]
    words = f"{told[0]['own']} modules of the pack and {told[0]['others']} others are imported."
    body = "\n".join(
        [
            f"`{shlex.join(['python', 'benchmarks/start.py', *arguments])}`",
            "",
            f"CPU seconds of {options.rounds} starts, each in a fresh process. {words}",
            f"{machine()}; {versions('torch')}.",
            "",
            table(["part", "least", "median", "most"], rows),
        ]
    )
    print(body)
    if options.write:
        write_section(TITLE, body)


if __name__ == "__main__":
    main(sys.argv[1:])
