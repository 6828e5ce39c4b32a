"""A Python of the host that has imported torch and comfy already, and runs each piece of code in a fork of its own.

These imports take longer than most of the code. A fork finds nothing that another one has done. Where there is no
fork (Windows), code runs in a new process.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

SERVER = """
import comfy.cli_args, json, os, signal, sys, time, traceback, types
comfy.cli_args.args.cpu = True
import torch, comfy.sd, comfy.sample, comfy.lora, folder_paths, nodes, comfy_api.latest

def run(job):
    for name, number in (("out", 1), ("err", 2)):
        file = os.open(job[name], os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    script, *arguments = job["command"]
    sys.argv = [script, *arguments]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = script
    code = 0
    try:
        exec(compile(open(script).read(), script, "exec"), main.__dict__)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        run(job)
    end = time.monotonic() + job["timeout"]
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    print(json.dumps(os.waitstatus_to_exitcode(status)), file=answers, flush=True)
"""


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class WarmPython:
    """One process, started at first use."""

    def __init__(self, python: Path, variables: tuple[tuple[str, str], ...]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="loom-warm-")
        server = Path(self._folder.name) / "forking.py"  # not server.py, which the host has
        server.write_text(SERVER)
        # Threads of OpenMP do not live on in a fork.
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        self._process = subprocess.Popen(
            [str(python), str(server)], env=dict(variables) | threads, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(Path(self._folder.name) / "log", "w"),  # noqa: SIM115
        )  # fmt: skip
        atexit.register(self.close)

    def run(self, script: Path, arguments: Sequence[str], timeout: float) -> Done:
        out, err = script.with_suffix(".out"), script.with_suffix(".err")
        job = {"command": [str(script), *arguments], "out": str(out), "err": str(err), "timeout": timeout}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the host's Python ended:\n{(Path(self._folder.name) / 'log').read_text()[-3000:]}")
        code = json.loads(answer)
        read = [path.read_text(errors="replace") if path.exists() else "" for path in (out, err)]
        if code == -9:
            raise subprocess.TimeoutExpired(str(script), timeout, *read)
        return Done(code, *read)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


@cache
def warm_python(python: Path, variables: tuple[tuple[str, str], ...]) -> WarmPython:
    """One for each Python and its environment variables."""
    return WarmPython(python, variables)
