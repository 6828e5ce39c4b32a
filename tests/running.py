"""``loom`` in processes of its own, to be killed and interrupted: by its command line, under accelerate, or warm.

A warm one is forked from a process that has all libraries in memory, which saves the seconds of their import.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

from command_line import Result
from lora_core.train.config import TrainConfig, dump_config

ROOT = Path(__file__).parents[1]
# Room for a loaded machine: nothing is asserted of time.
PATIENCE = 280.0
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}


class Running:
    """One of them.

    Args:
        pid: of the process.
        poll: its exit status, None while it runs.
        log: where its output goes.
    """

    def __init__(self, pid: int, poll: Callable[[], int | None], log: Path) -> None:
        self.pid, self.poll, self._log = pid, poll, log

    @property
    def output(self) -> str:
        return self._log.read_text("utf-8", errors="replace") if self._log.exists() else ""

    def until(self, seen: Callable[[], bool]) -> None:
        """Wait for something to be there, without a pause: it may be gone soon."""
        deadline = time.monotonic() + PATIENCE
        while not seen():
            assert self.poll() is None, self.output
            assert time.monotonic() < deadline, "it never came"

    def end(self) -> int:
        """Wait for the end; its exit status."""
        deadline = time.monotonic() + PATIENCE
        while (status := self.poll()) is None:
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)
        return status

    def finish(self) -> str:
        """Wait for the end, which has to be a good one; what it said."""
        assert self.end() == 0, self.output
        return self.output

    def send(self, number: signal.Signals) -> int:
        os.kill(self.pid, number)
        return self.end()


def command(config: TrainConfig, *, processes: int = 1) -> Running:
    """``python -m lora_core train``, under accelerate where there are several processes."""
    # accelerate's --cpu starts one process, whatever number it is told; the settings say that it is the CPU.
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", f"--num_processes={processes}", "--num_machines=1"]
    launch += ["--mixed_precision=no", "--dynamo_backend=no", f"--main_process_port={free_port()}"]
    line = [sys.executable, *(launch if processes > 1 else ()), "-m", "lora_core", "train", str(_settings(config))]
    log = _log(config)
    with log.open("w") as out:
        started = subprocess.Popen(
            line, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, stdout=out, stderr=subprocess.STDOUT
        )
    return Running(started.pid, started.poll, log)


def warm(config: TrainConfig) -> Running:
    """The same in one process that has all libraries."""
    return _forked(config, _log(config), {})


def warm_pair(config: TrainConfig) -> list[Running]:
    """Two processes that know of each other, as a launcher starts them."""
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "LOCAL_WORLD_SIZE": "2"}
    return [
        _forked(config, _log(config, rank), {**both, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)
    ]


def loom(*arguments: object, folder: Path = ROOT, environment: Mapping[str, str] | None = None) -> Result:
    """``python -m lora_core`` in that folder, warm where there are forks: what it says and how it ends."""
    if not hasattr(os, "fork"):
        line = [sys.executable, "-m", "lora_core", *map(str, arguments)]
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **ENVIRONMENT, **(environment or {})}
        done = subprocess.run(line, cwd=folder, env=variables, capture_output=True, text=True, timeout=PATIENCE)
        return Result(done.returncode, done.stdout, done.stderr)
    with tempfile.TemporaryDirectory(prefix="loom-said-") as said:
        one = started(*arguments, out=Path(said, "out"), err=Path(said, "err"), folder=folder, environment=environment)
        status = one.end()
        return Result(status, *(Path(said, name).read_text("utf-8") for name in ("out", "err")))


def started(
    *arguments: object, out: Path, err: Path, folder: Path = ROOT, environment: Mapping[str, str] | None = None
) -> Running:
    """The same, while it runs; a terminal may be one of the files."""
    wanted = (list(map(str, arguments)), str(out), str(err), dict(environment or {}), str(folder))
    return _process(wanted, err)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _forked(config: TrainConfig, log: Path, environment: Mapping[str, str]) -> Running:
    return _process((["train", str(_settings(config))], str(log), str(log), {**environment}, str(ROOT)), log)


def _process(wanted: tuple[list[str], str, str, dict[str, str], str], log: Path) -> Running:
    process = _server().Process(target=_run, args=wanted)
    process.start()
    assert process.pid is not None
    return Running(process.pid, lambda: process.exitcode, log)


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["running_warm"])
    before = os.environ.get("PYTHONPATH")
    # The server passes over the path that it is told before Python 3.13 or so.
    os.environ["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def _run(arguments: Sequence[str], out: str, err: str, environment: Mapping[str, str], folder: str) -> None:
    """In the forked process."""
    import torch

    # torch makes its pool of threads anew in a fork, and two threads that are the first to want it get in each
    # other's way ("Invalid thread pool!"): transformers loads in several.
    torch.set_num_threads(1)
    os.environ.update({**ENVIRONMENT, **environment})
    os.chdir(folder)
    files = {name: os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in {out, err}}
    for stream, name in ((sys.stdout, out), (sys.stderr, err)):
        os.dup2(files[name], stream.fileno())
    sys.argv[1:] = arguments
    runpy.run_module("lora_core", run_name="__main__", alter_sys=True)


def _settings(config: TrainConfig) -> Path:
    file = Path(config.output.folder).with_suffix(".toml")
    file.write_text(dump_config(config), "utf-8")
    return file


def _log(config: TrainConfig, rank: int = 0) -> Path:
    return Path(config.output.folder).with_suffix(f".{rank}.log")
