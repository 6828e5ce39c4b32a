"""How fast does a LoRA train, and in how much memory? Our loop against the logic of diffusers' own LoRA scripts.

    python benchmarks/train.py [--cases demo-4,demo-16,sd15-256] [--rounds 8] [--seconds 8] [--threads 2] [--write]
    python benchmarks/train.py --device cuda --write      # SD 1.5 at 512 px and SDXL at 1024 px, bf16
    nox -s bench -- train

The same model, pictures, captions, batch, LoRA (rank 4 on queries, keys, values and outputs), AdamW and rate for all:

- reference: what diffusers' script does in a step (`_train_reference.py`), VAE and text encoder in each;
- ours, as copied: `train()` with its settings, nothing cached, the loss read and logged in each step;
- ours: `train()` with caches of latents and text, which is the default, the loss read every 10 steps;
- on a GPU also ours compiled (`run.compile`), and with CUDA graphs, which the engine has no setting for yet.

Contenders are processes of their own, alive at once; they take turns of a few steps, and each round gives a ratio.
Loading, caching and the first turn are not in the times. Memory is the most that a process held, from its start: on
the CPU resident memory, with the pages of mapped files (ours reads all weights once, to know what its caches and
states belong to; the reference never touches the VAE's decoder); on a GPU what tensors took.

Before, both loops are compared (`_train_compare.py`): from the same factors, with the same noise and timesteps, each
step's loss must be the same but for rounding.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Behind the rest of the path: a ComfyUI that is on it keeps its own nodes.py.
sys.path += [str(HERE.parent), str(HERE.parent / "tests")]

import torch  # noqa: E402
from _measure import machine, table, versions, write_section  # noqa: E402
from _train_cases import CASES, Case, write_base, write_pictures  # noqa: E402

ALONE = ("reference", "ours, as copied", "ours")
ON_GPU = (*ALONE, "ours, compiled", "ours, CUDA graphs")
PACKAGES = ("torch", "diffusers", "peft", "accelerate", "transformers")
PICTURES = 32
GIGABYTE = 1e9
# Of the loss: hundreds of products of float32 in another order. In bf16 a different order of casts is enough.
ROUNDING = {"fp32": 1e-5, "bf16": 0.02}

Measured = list[dict[str, float]]


class Contender:
    """A process that takes steps when it is told to (`_train_worker.py`)."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        command = [sys.executable, str(HERE / "_train_worker.py"), json.dumps(job)]
        self.name = job["contender"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}: run _train_worker.py to see why")
        return json.loads(line)

    def turn(self, steps: int) -> dict[str, float]:
        """Seconds and CPU seconds a step, and bytes so far."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        found = self.answer()
        return {"seconds": found["seconds"] / steps, "cpu": found["cpu"] / steps, "memory": found["memory"]}

    def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(60)  # it saves what it trained
        except subprocess.TimeoutExpired:
            self.process.kill()


def measure(case: str, files: Mapping[str, str], options: argparse.Namespace, folder: Path) -> dict[str, Measured]:
    """What each contender's turns took, round by round."""
    with ExitStack() as stack:
        contenders: list[Contender] = []
        for number, name in enumerate(options.contenders):
            job = _job(case, files, options, folder / str(number), contender=name)
            contenders.append(stack.enter_context(_running(job)))
        first = {one.name: one.turn(options.warmup) for one in contenders}
        steps = max(1, round(options.seconds / first["reference"]["seconds"]))
        print(f"{case}: {steps} steps a turn", file=sys.stderr, flush=True)
        found: dict[str, Measured] = {one.name: [] for one in contenders}
        for number in range(options.rounds):
            place = number % len(contenders)  # nobody is always the one behind another
            for one in contenders[place:] + contenders[:place]:
                found[one.name].append(one.turn(steps))
            last = "  ".join(f"{name} {turns[-1]['seconds']:.3f}" for name, turns in found.items())
            print(f"{case}, round {number + 1}: {last}", file=sys.stderr, flush=True)
        return found


@contextmanager
def _running(job: Mapping[str, Any]) -> Iterator[Contender]:
    """Started, loaded and cached; one after another, so that loading is no noise for the first turn."""
    one = Contender(job)
    try:
        one.answer()
        yield one
    finally:
        one.end()


def rows_of(case: Case, found: Mapping[str, Measured]) -> list[list[str]]:
    """Of the table. Ratios are of the same round."""
    rows: list[list[str]] = []
    for name, turns in found.items():
        seconds, cpu, memory = (statistics.median(turn[key] for turn in turns) for key in ("seconds", "cpu", "memory"))
        pairs = list(zip(found["reference"], turns, strict=True))
        row = [
            f"{case.title}, {case.size} px, batch {case.batch}",
            name,
            f"{case.batch / seconds:.3f}" if seconds > case.batch else f"{case.batch / seconds:.2f}",
        ]
        row += [f"{seconds:.3f}", f"{cpu:.3f}"]
        row += [_ratio([base[key] / turn[key] for base, turn in pairs]) for key in ("seconds", "cpu")]
        row += [f"{memory / GIGABYTE:.2f}", f"{case.tflop * case.batch / seconds:.1f}" if case.tflop else ""]
        rows.append(row)
    return rows


def _ratio(values: Sequence[float]) -> str:
    """Median, and the quartiles around it."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def compared(case: str, files: Mapping[str, str], options: argparse.Namespace, folder: Path) -> str:
    """A line on how equal both loops are."""
    steps = options.check if CASES[case].model == "demo" else min(options.check, options.check_large)
    one = Contender(_job(case, files, options, folder, contender="compare", steps=steps))
    found = one.answer()
    one.end()
    if not found["loss"] < ROUNDING[options.precision]:
        raise SystemExit(f"{case}: losses differ by {found['loss']:.1e}: that is not the same work")
    return (
        f"{case}: losses of {steps} steps differ by {found['loss']:.0e} at the most, norms of gradients by "
        f"{found['norm']:.0e}, the trained factors by {found['factors']:.0e} of their change; "
        f"{found['reads']:.0f} reads of the device in a step of ours with caches."
    )


def _job(case: str, files: Mapping[str, str], options: argparse.Namespace, folder: Path, **more: Any) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    how = {"device": options.device, "precision": options.precision, "threads": options.threads}
    return {"case": case, **files, "folder": str(folder)} | how | more


def main(arguments: Sequence[str]) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    rows: list[list[str]] = []
    same: list[str] = []
    for name in options.cases:
        case = CASES[name]
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="loom-bench-") as folder:
            base = write_base(case.model, Path(folder, "base"))
            pictures = write_pictures(Path(folder, "pictures"), case.size, PICTURES)
            files = {"base": str(base), "pictures": str(pictures)}
            if options.check:
                same.append(compared(name, files, options, Path(folder, "compare")))
                print(same[-1], file=sys.stderr, flush=True)
            rows += rows_of(case, measure(name, files, options, Path(folder)))
    head = ["trained", "contender", "images/s", "s a step", "CPU s a step", "speed of the reference", "by CPU time"]
    head += ["peak memory, GB", "TFLOP/s"]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    body = "\n".join(
        [
            f"`{shlex.join(['python', 'benchmarks/train.py', *arguments])}`",
            "",
            f"LoRA of rank 4, {options.precision}; medians of {options.rounds} "
            f"interleaved rounds, each a turn of about {options.seconds:g} s for every contender; ratios of the same "
            "round, with quartiles; above 1 is faster than the reference.",
            f"{machine(options.device)}; {versions(*PACKAGES)}; {date.today():%d %B %Y}.",
            "",
            table(head, rows),
            *_floor(options),
            *(["", "With the reference's settings, noise and timesteps:", ""] if same else []),
            *(f"- {line}" for line in same),
        ]
    )
    print(body)
    if options.write:
        models = ", ".join(dict.fromkeys(CASES[name].title for name in options.cases))
        write_section(f"Training on {options.device}: {models}, threads: {options.threads}", body)


def _floor(options: argparse.Namespace) -> list[str]:
    """What a GPU can do, beside the column TFLOP/s."""
    if not options.device.startswith("cuda"):
        return []
    size, times = 8192, 20
    one = torch.randn(size, size, device=options.device, dtype=torch.bfloat16)
    torch.mm(one, one)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        torch.mm(one, one)
    torch.cuda.synchronize()
    rate = times * 2 * size**3 / (time.perf_counter() - began) / 1e12
    return ["", f"TFLOP/s counts what a step has to compute; products of {size} by {size} in bf16 ran at {rate:.0f}."]


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=_words(CASES), help=f"of {', '.join(CASES)}; what suits the device without it")
    parser.add_argument("--contenders", type=lambda text: tuple(text.split(";")), help="other than all, joined by ;")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=tuple(ROUNDING), help="bf16 on a GPU, fp32 elsewhere, without it")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8, help="of a turn of the reference, about")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the first round")
    parser.add_argument("--check", type=int, default=20, help="steps that are compared; 0 for none")
    parser.add_argument("--check-large", type=int, default=6, help="steps that are compared for large models")
    parser.add_argument("--folder", type=Path, help="for models of random weights, 4 and 14 GB")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(arguments)
    gpu = options.device.startswith("cuda")
    options.cases = options.cases or (("sd15-512", "sdxl-1024") if gpu else ("demo-4", "demo-16", "sd15-256"))
    options.precision = options.precision or ("bf16" if gpu else "fp32")
    options.contenders = options.contenders or (ON_GPU if gpu else ALONE)
    if "reference" not in options.contenders:
        parser.error("--contenders: the reference must be one of them")
    return options


def _words(known: Mapping[str, object]) -> Any:
    def words(text: str) -> tuple[str, ...]:
        if unknown := [word for word in text.split(",") if word not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(known)}")
        return tuple(text.split(","))

    return words


if __name__ == "__main__":
    main(sys.argv[1:])
