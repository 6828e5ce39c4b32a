"""How fast does a stack of LoRAs get into a model's weights? Ours, ComfyUI's way, PEFT's, diffusers', and two floors.

    python benchmarks/patch.py --model sd15 --loras 1,3,5 --ranks 16,32,64 --dtype fp16 [--device cuda] [--write]
    nox -s bench -- patch --model sdxl

The work: every attention, feed-forward and projection weight of the UNet, stored as --dtype, gets the LoRAs (fp16
factors, alpha = rank / 2, strength 0.8) and is stored as --dtype again. All is in memory, on the device. Floors:
a copy of the weights; and the bare float32 products of concatenated factors. PEFT and diffusers change a weight
in place and add in --dtype, rounding once a LoRA; the others make a new weight and add in float32 (ComfyUI in the
type it chooses for the device). Each contender's first weight is checked before it is timed.

A peer that cannot be imported, or not do this dtype, is left out and named.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

# Behind the rest of the path: a ComfyUI that is on it keeps its own nodes.py.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from _measure import interleave, machine, table, versions, write_section
from _patch_contenders import CONTENDERS, FLOORS, difference
from _patch_work import make

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PACKAGES = ("torch", "comfy-kitchen", "peft", "diffusers")


def measure(options: argparse.Namespace, loras: int, rank: int) -> tuple[dict[str, float], dict[str, str], str]:
    """Seconds for the model by contender, the absent ones with the reason, and what the work was."""
    work = make(options.model, options.limit, loras, rank, DTYPES[options.dtype], options.device)
    running = {name: make_floor(work) for name, make_floor in FLOORS.items()}
    absent: dict[str, str] = {}
    for name, make_contender in CONTENDERS.items():
        try:
            contender = make_contender(work)
            fault = difference(work, contender)
        except (ImportError, RuntimeError) as error:  # torch says RuntimeError for what a dtype cannot do
            if name == "ours":
                raise
            absent[name] = str(error).splitlines()[0]
            continue
        # Of the largest change: fp16 and finer types are far below, fp8 keeps three bits of a number.
        if not fault < (0.2 if options.dtype == "fp8" else 0.02):
            raise SystemExit(f"{name} is off by {fault:.1%} of the largest change: that is not the same work")
        running[name] = contender

    def settle() -> None:
        if options.device.startswith("cuda"):
            torch.cuda.synchronize()

    taken = interleave(running, len(work.portions), options.repeats, settle, CLOCKS[options.clock])
    return {name: sum(seconds) * work.scale for name, seconds in taken.items()}, absent, work.summary


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("sd15", "sdxl"), default="sd15")
    parser.add_argument("--loras", type=_numbers, default=(1, 3, 5), help="sizes of the stack")
    parser.add_argument("--ranks", type=_numbers, default=(16, 32, 64))
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp16", help="of the weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="processor threads; torch's own choice without it")
    parser.add_argument(
        "--clock", choices=tuple(CLOCKS), default="wall", help="cpu: on a busy machine, with --threads 1"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=int, default=300, help="millions of weights; larger models are sampled")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(arguments)
    if options.clock == "cpu" and (options.threads != 1 or options.device != "cpu"):
        parser.error("--clock cpu is for --threads 1 and --device cpu")
    if options.threads:
        torch.set_num_threads(options.threads)
    names = [*FLOORS, *CONTENDERS]
    rows: list[list[str]] = []
    for loras in options.loras:
        for rank in options.ranks:
            seconds, absent, summary = measure(options, loras, rank)
            row = [f"{loras} of rank {rank}", *(f"{seconds[name]:.3f}" if name in seconds else "-" for name in names)]
            for name, base in (("ours", "products"), ("ComfyUI", "ours"), ("PEFT", "ours"), ("diffusers", "ours")):
                row.append(f"{seconds[name] / seconds[base]:.2f}" if name in seconds else "-")
            rows.append(row)
            print("  ".join(row), file=sys.stderr, flush=True)
    head = ["LoRAs", *names, "ours / products", "ComfyUI / ours", "PEFT / ours", "diffusers / ours"]
    command = shlex.join(["python", "benchmarks/patch.py", *arguments])
    unit = "CPU seconds" if options.clock == "cpu" else "Seconds"
    body = "\n".join(
        [
            f"`{command}`",
            "",
            f"{unit} for {summary}, stored as {options.dtype}; median of {options.repeats} interleaved rounds.",
            f"{machine(options.device)}; {versions(*PACKAGES)}.",
            *(f"Not measured: {name} ({reason})." for name, reason in absent.items()),
            "",
            table(head, rows),
        ]
    )
    print(body)
    if options.write:
        threads = f", threads: {options.threads}" if options.threads else ""
        write_section(f"Patching {options.model} {options.dtype} on {options.device}{threads}", body)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    main(sys.argv[1:])
