"""``loom train`` in processes of its own, to be killed and interrupted: by its command line, under accelerate, or warm.

A warm one is forked from a process that has all libraries in memory, which saves the seconds of their import.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

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
        return self._log.read_text("utf-8", errors="replace")

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


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _forked(config: TrainConfig, log: Path, environment: Mapping[str, str]) -> Running:
    process = _server().Process(target=_run, args=(["train", str(_settings(config))], str(log), {**environment}))
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


def _run(arguments: Sequence[str], log: str, environment: Mapping[str, str]) -> None:
    """In the forked process."""
    from lora_core.cli import main

    os.environ.update({**ENVIRONMENT, **environment})
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    sys.exit(main(arguments))


def _settings(config: TrainConfig) -> Path:
    file = Path(config.output.folder).with_suffix(".toml")
    file.write_text(dump_config(config), "utf-8")
    return file


def _log(config: TrainConfig, rank: int = 0) -> Path:
    return Path(config.output.folder).with_suffix(f".{rank}.log")
