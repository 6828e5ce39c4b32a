"""Describing files in a process of its own, for when there are many.

A header makes tens of thousands of short-lived objects. In the process of a host they wake Python's collector every
hundred files to walk through all that the host has in memory, which stops everything else for half a second. So the
first indexing of a library goes to a helper: nothing of the host is in its memory, it has a low priority, and a file
that crashes it costs that file alone. It ends with its standard input, and so with the host, however that ends.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from .entry import Described, describe_file, failed

_ROOT = Path(__file__).resolve().parents[2]
_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from lora_core.library.apart import serve; serve()"
# A helper that ends so often without a single answer cannot run here.
_PATIENCE = 2


class Apart:
    """The helper, started at the first file. For one thread; ``close`` may come from another."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._answered = False
        self._failures = 0
        self._closed = False

    @property
    def usable(self) -> bool:
        """Not so where there is no Python to start, or where it did not start."""
        python = Path(sys.executable or "").name.lower()
        return python.startswith("python") and self._failures < _PATIENCE and not self._closed

    @property
    def running(self) -> bool:
        return self._process is not None

    def describe(self, path: str) -> Described:
        """As ``describe_file``, without the metadata."""
        answer = self._ask(path)
        if answer is None and self._answered:  # this file ended a helper that had worked
            self.rest()
            name = os.path.basename(path)
            line = f"{name}: the process that read it ended. Is the file damaged, or memory short?"
            return failed(Path(path), line)
        if answer is None:
            self._failures += 1
            self.rest()
            return describe_file(path)
        self._answered = True
        return Described(answer["fields"], answer["report"], {}, answer["error"], answer["lasting"])

    def rest(self) -> None:
        """End the helper; the next file starts another."""
        process, self._process, self._answered = self._process, None, False
        if process is not None:
            with suppress(OSError):
                process.kill()
            with suppress(OSError):
                process.communicate()

    def close(self) -> None:
        """End it for good."""
        self._closed = True
        process = self._process
        if process is not None:
            with suppress(OSError):
                process.kill()

    def _ask(self, path: str) -> Any:
        try:
            if self._process is None:
                self._process = _start()
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(path).encode() + b"\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            return None


def _start() -> subprocess.Popen[bytes]:
    # No accelerator is touched, and one thread is enough: nothing is computed.
    variables = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NO_WINDOW | subprocess.IDLE_PRIORITY_CLASS
    return subprocess.Popen(
        [sys.executable, "-c", _CODE, str(_ROOT)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=variables, creationflags=flags,
    )  # fmt: skip


def serve() -> None:
    """The helper's side: a path a line in, a description a line out, until there are no more."""
    with suppress(AttributeError, OSError):
        os.nice(15)
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    gc.disable()  # sources are closed, and what is left ends with this process
    for number, line in enumerate(sys.stdin.buffer):
        found = describe_file(json.loads(line))
        said = {"fields": found.fields, "report": found.report, "error": found.error, "lasting": found.lasting}
        answers.write(json.dumps(said).encode() + b"\n")
        answers.flush()
        if number % 500 == 499:
            gc.collect()
