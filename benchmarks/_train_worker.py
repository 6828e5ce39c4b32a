"""One contender of `train.py` in a process of its own, which takes steps when it is told to.

Standard input: a line for each turn, the number of steps; 0 ends. Standard output: a JSON line when all is loaded and
cached, and one after each turn. All contenders live at once and are idle but one, so turns can be short, and what
else the machine does meets all of them alike.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

ROOT = Path(__file__).resolve().parent.parent
# Behind the rest of the path: a ComfyUI that is on it keeps its own nodes.py.
sys.path += [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from _measure import peak_memory  # noqa: E402
from _train_cases import CASES  # noqa: E402

if TYPE_CHECKING:
    from _train_reference import Plan


class Turns:
    """Asked before each step; waits between turns."""

    def __init__(self, orders: TextIO, answers: TextIO, device: str) -> None:
        self.orders, self.answers, self.device = orders, answers, device
        self.left = 0
        self.began: tuple[float, float] | None = None

    def more(self) -> bool:
        """False after the last turn."""
        if self.left == 0:
            self._answer()
            self.left = int(self.orders.readline() or 0)
            if self.left == 0:
                return False
            self.began = (time.perf_counter(), time.process_time())
        self.left -= 1
        return True

    def _answer(self) -> None:
        gpu = self.device.startswith("cuda")
        if gpu:
            torch.cuda.synchronize(self.device)
        found: dict[str, float] = {}
        if self.began is not None:
            seconds, cpu = self.began
            found = {"seconds": time.perf_counter() - seconds, "cpu": time.process_time() - cpu}
        found["memory"] = torch.cuda.max_memory_allocated(self.device) if gpu else peak_memory()
        print(json.dumps(found), file=self.answers, flush=True)


def ours(job: Mapping[str, Any], turns: Turns, **how: bool) -> None:
    from _train_ours import take_turns

    take_turns(job, turns.more, **how)


def theirs(job: Mapping[str, Any], turns: Turns) -> None:
    from _train_reference import train

    train(plan_of(job), turns.more)


def plan_of(job: Mapping[str, Any]) -> Plan:
    """The reference's."""
    from _train_reference import Plan

    case = CASES[job["case"]]
    return Plan(
        base=Path(job["base"]),
        pictures=Path(job["pictures"]),
        logs=Path(job["folder"]) / "logs",
        size=case.size,
        batch=case.batch,
        sdxl=case.is_sdxl,
        device=job["device"],
        precision=job["precision"],
    )


CONTENDERS: Mapping[str, Callable[[Mapping[str, Any], Turns], None]] = {
    "reference": theirs,
    "ours, as copied": lambda job, turns: ours(job, turns, copied=True),
    "ours": ours,
    "ours, compiled": lambda job, turns: ours(job, turns, compiled=True),
    "ours, CUDA graphs": lambda job, turns: ours(job, turns, graphs=True),
}


def main() -> None:
    job = json.loads(sys.argv[1])
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(job["threads"])
    if job["contender"] == "compare":
        from _train_compare import compare

        print(json.dumps(compare(job, plan_of(job))), file=answers, flush=True)
        return
    CONTENDERS[job["contender"]](job, Turns(sys.stdin, answers, job["device"]))


if __name__ == "__main__":
    main()
