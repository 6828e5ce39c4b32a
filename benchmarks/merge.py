"""How long does a merge into a checkpoint take, against copying the file, and how much memory?

    python benchmarks/merge.py [--model sd15|sdxl] [--loras 3] [--rank 32] [--rounds 5] [--dtype same] [--write]
    python benchmarks/merge.py --full          # the 7 GB one: SDXL, two rounds
    nox -s bench -- merge

The work: a checkpoint of the model's real names and shapes in fp16 (random numbers, a VAE's worth of other tensors),
and LoRAs of kohya's usual kind (attention, feed-forward, projections, text encoders). The contenders take turns,
each run in a process of its own:

- copy: ``cp --reflink=never`` and ``sync`` of the copy;
- merge: ``merge_to_checkpoint``, hashes of all inputs included, which flushes the file and its folder too;
- in memory: the usual way, ``load_file``, the same patches one by one, ``save_file``, and ``sync`` of the file.

So every contender ends with its bytes on disk. The source is in the page cache for all: it is read once before, where
memory has room for it. Seconds exclude starting Python and importing torch. Memory is the peak resident set, which
counts mapped pages of files too; CPU seconds show what waits for others on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # behind the rest: a ComfyUI that is on the path keeps its own nodes.py

from _measure import machine, peak_memory, table, versions, write_section  # noqa: E402

from lora_core import Stack, StackEntry, Strengths, load_adapter  # noqa: E402
from lora_core.architectures import ARCHITECTURES, Architecture  # noqa: E402
from lora_core.io import Entry, stream_safetensors  # noqa: E402
from lora_core.merge import merge_to_checkpoint, open_checkpoint  # noqa: E402
from lora_core.patching import apply_patch, bind  # noqa: E402
from lora_core.types import Target  # noqa: E402

ADAPTED = re.compile(r"attn\d\.to_|\.ff\.net\.|proj_(in|out)$|self_attn\.|mlp\.fc")
VAE_NUMBERS = 83_653_863  # of SD's autoencoder
GIGABYTE = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="sd15", choices=("sd15", "sdxl"))
    parser.add_argument("--loras", type=int, default=3)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="same")
    parser.add_argument("--full", action="store_true", help="SDXL, two rounds, without the way in memory")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary folder by default")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    parser.add_argument("--once", help=argparse.SUPPRESS)  # one contender, in a process of its own
    args = parser.parse_args()
    if args.full:
        args.model, args.rounds = "sdxl", 2
    if args.once:
        once(args.once, args.folder, args.dtype)
        return
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="loom-bench-") as folder:
        text = measure(args, Path(folder))
    print(text)
    if args.write:
        write_section(f"Merge into a checkpoint, {args.model}", text)


def measure(args: argparse.Namespace, folder: Path) -> str:
    """Make the files, let the contenders take turns, and tabulate."""
    architecture = ARCHITECTURES.get(args.model)
    make_files(architecture, folder, args.loras, args.rank)
    size = (folder / "base.safetensors").stat().st_size
    names = ["copy", "merge"] + (["in memory"] if not args.full else [])
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(args.rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            result = copy(folder) if name == "copy" else in_process(name, folder, args.dtype)
            if number:  # the first round warms the page cache
                found[name].append(result)
    rows: list[list[str]] = []
    for name in names:
        ratio = statistics.median(
            run["seconds"] / base["seconds"] for run, base in zip(found[name], found["copy"], strict=True)
        )
        median = {key: statistics.median(run[key] for run in found[name]) for key in found[name][0]}
        memory = f"{median['rss'] / GIGABYTE:.2f}" if "rss" in median else ""
        processor = f"{median['cpu']:.2f}" if "cpu" in median else ""
        rows.append([name, f"{median['seconds']:.2f}", f"{ratio:.2f}", processor, memory])
    head = ["contender", "seconds", "of a copy", "CPU seconds", "peak memory, GB"]
    summary = (
        f"{size / GIGABYTE:.2f} GB fp16, {args.loras} LoRAs of rank {args.rank}, dtype {args.dtype}; medians of "
        f'{args.rounds} interleaved rounds, "of a copy" of each round\'s ratio. Everything is flushed to disk.'
    )
    words = " ".join(word for word in sys.argv[1:] if word != "--write")
    where = f"{machine()}; {versions('torch', 'safetensors')}."
    return f"`python benchmarks/merge.py {words}`\n\n{summary}\n{where}\n\n{table(head, rows)}"


def copy(folder: Path) -> dict[str, float]:
    """``cp`` and ``sync``."""
    source, target = folder / "base.safetensors", folder / "copy.safetensors"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(["cp", "--reflink=never", source, target], check=True)
    subprocess.run(["sync", target], check=True)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    target.unlink()
    return {"seconds": seconds, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def in_process(name: str, folder: Path, dtype: str) -> dict[str, float]:
    """One of ``ONCE`` in a fresh process."""
    command = [sys.executable, __file__, "--once", name, "--folder", str(folder), "--dtype", dtype]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    (folder / "out.safetensors").unlink()
    return json.loads(done.stdout.splitlines()[-1])


def once(name: str, folder: Path, dtype: str) -> None:
    """Run a contender and print what it took."""
    before = time.process_time()
    start = time.perf_counter()
    ONCE[name](folder, dtype)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - before, "rss": peak_memory()}))


def stack(folder: Path) -> Stack:
    paths = sorted(folder.glob("lora*.safetensors"))
    return Stack(tuple(StackEntry(load_adapter(path), Strengths(0.8, 0.8)) for path in paths))


def merge(folder: Path, dtype: str) -> None:
    merge_to_checkpoint(folder / "base.safetensors", stack(folder), folder / "out.safetensors", dtype=dtype)


def in_memory(folder: Path, dtype: str) -> None:
    """All tensors in memory, the same patches, the safetensors library's own writing."""
    from safetensors.torch import load_file, save_file

    checkpoint = open_checkpoint(folder / "base.safetensors")
    tensors = load_file(folder / "base.safetensors")
    for target, patch in bind(stack(folder), checkpoint.shape_of).patches.items():
        place = checkpoint.places[target]
        part = tensors[place.key] if place.slice is None else tensors[place.key].narrow(*place.slice)
        part = part.T if place.transposed else part
        part.copy_(apply_patch(part, patch))
    if dtype not in ("same", "fp16"):
        raise SystemExit("the way in memory is written for fp16")
    save_file(tensors, folder / "out.safetensors")
    subprocess.run(["sync", folder / "out.safetensors"], check=True)


ONCE: dict[str, Callable[[Path, str], None]] = {"merge": merge, "in memory": in_memory}


def make_files(architecture: Architecture, folder: Path, loras: int, rank: int) -> None:
    """A checkpoint with the model's names and shapes, and LoRAs on it."""
    supply = torch.randn(1 << 26, generator=torch.Generator().manual_seed(1)).mul_(0.02).half()

    def entry(name: str, shape: tuple[int, ...], seed: int) -> Entry:
        def numbers() -> torch.Tensor:
            count, first = torch.Size(shape).numel(), seed % 1000
            many = supply if first + count <= supply.numel() else supply.repeat(-(-count // supply.numel()) + 1)
            return many[first : first + count].reshape(shape)

        return Entry(name, "F16", shape, numbers)

    shapes: dict[str, tuple[int, ...]] = {"first_stage_model.filler": (VAE_NUMBERS,)}
    adapted: dict[str, tuple[int, ...]] = {}
    for key, module in architecture.walk():
        component: Any = architecture.component(key.component)
        for parameter, shape in module.shapes.items():
            place = architecture.place(Target(key, parameter))
            assert place is not None
            if place.slice is not None:
                end = place.slice.start + place.slice.length
                shape = (max(end, shapes.get(place.key, (0,))[0]), *shape[1:])
            shapes[place.key] = tuple(shape)
        if ADAPTED.search(module.path):
            adapted[f"{component.kohya_prefixes[0]}_{module.diffusers.replace('.', '_')}"] = module.shapes["weight"]
    entries = [entry(name, shape, seed) for seed, (name, shape) in enumerate(shapes.items())]
    stream_safetensors(folder / "base.safetensors", entries)
    for number in range(loras):
        parts: list[Entry] = []
        for seed, (name, shape) in enumerate(adapted.items()):
            down, up = (rank, *shape[1:]), (shape[0], rank, *(1 for _ in shape[2:]))
            parts.append(entry(f"{name}.lora_down.weight", down, seed + number))
            parts.append(entry(f"{name}.lora_up.weight", up, seed + number + 500))
            parts.append(Entry(f"{name}.alpha", "F16", (), lambda: torch.tensor(rank / 2, dtype=torch.float16)))
        stream_safetensors(folder / f"lora{number}.safetensors", parts)


if __name__ == "__main__":
    main()
