"""How long from a file to what it is? Ours, the ``safetensors`` library as the floor, ComfyUI's loader as the peer.

    python benchmarks/load.py [--tensors 2000] [--files 1000] [--rounds 9] [--clock wall|cpu] [--write]
    nox -s bench -- load

One file (a LoRA of SDXL with its text encoders in kohya's names, and one of FLUX in ComfyUI's):

- safetensors: ``safe_open``, and the shape and dtype of each tensor;
- open: ours, the header read and checked;
- ours: header to report, which is format, family, every tensor accounted for, ranks, trigger words. Alphas are read;
- ComfyUI: what its Load LoRA does before it patches: read all tensors, the model's table of names, a patch per module.

A folder: files of all families and both namings, 100 to 1,500 tensors each, indexed with ``index_folder`` against
``safe_open`` and each tensor's shape and dtype. No tensor is read. Tensors are holes in the files, so that reading
them costs no disk; what the peer reads costs it memory alone. The first load of a process also builds tables of the
families; it is given apart.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

# Behind the rest of the path: a ComfyUI that is on it keeps its own nodes.py.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from _load_files import collection, header, write
from _measure import interleave, machine, table, versions, write_section

from lora_core.architectures import ARCHITECTURES
from lora_core.index import index_folder
from lora_core.inspect import describe
from lora_core.io import open_tensors
from lora_core.mapping import map_source
from lora_core.types import ModuleKey, Target

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
KINDS = {"SDXL, kohya": ("sdxl", "kohya"), "FLUX, comfy": ("flux", "comfy")}


def floor(path: Path) -> None:
    with safe_open(path, "pt") as file:
        file.metadata()
        for key in file.keys():  # noqa: SIM118, it is no mapping
            part = file.get_slice(key)
            part.get_shape()
            part.get_dtype()


def ours(path: Path) -> dict[str, Any]:
    return describe(map_source(open_tensors(path)), path=path)


def comfyui(architecture: str) -> Callable[[Path], int]:
    """Number of patches. The model has no memory: its names are enough."""
    import_module("comfy.cli_args").args.cpu = True
    detection, lora = import_module("comfy.model_detection"), import_module("comfy.lora")
    utils, convert = import_module("comfy.utils"), import_module("comfy.lora_convert")
    row = ARCHITECTURES.get(architecture)
    component = row.components[0]
    names = {
        Target(ModuleKey(component.name, path), parameter): shape
        for path, module in component.modules.items()
        for parameter, shape in module.shapes.items()
    }
    prefix = component.checkpoint_prefix
    meta: dict[str, torch.Tensor] = {}
    for target, shape in names.items():
        place = row.place(target)
        assert place is not None
        meta[place.key.removeprefix(prefix)] = torch.empty(shape, device="meta")
    model = detection.model_config_from_unet(meta, "").get_model({}, "", device=torch.device("meta"))

    def load(path: Path) -> int:
        tensors = utils.load_torch_file(str(path), safe_load=True)
        table = lora.model_lora_keys_unet(model, {})
        return len(lora.load_lora(convert.convert_lora(tensors), table))

    return load


def first_load(path: Path) -> float:
    """Seconds of the first file in a fresh process, imports not counted."""
    code = (
        f"import sys, time; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}\n"
        f"import load, pathlib; path = pathlib.Path({str(path)!r}); start = time.perf_counter()\n"
        "load.ours(path); print(time.perf_counter() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def one_file(options: argparse.Namespace, folder: Path) -> tuple[list[list[str]], dict[str, str]]:
    """Rows of the first table; absent contenders with the reason."""
    rows: list[list[str]] = []
    absent: dict[str, str] = {}
    for title, (architecture, naming) in KINDS.items():
        shapes = header(ARCHITECTURES.get(architecture), naming, options.tensors)
        path = write(folder / f"{architecture}.safetensors", shapes)
        report = ours(path)
        assert report["architecture"] == architecture
        assert report["tensors"]["used"] == len(shapes), "a file that does not fit is no measure"
        running: dict[str, Callable[[int], object]] = {
            "safetensors": lambda _, path=path: floor(path),
            "open": lambda _, path=path: open_tensors(path),
            "ours": lambda _, path=path: ours(path),
        }
        try:
            load = comfyui(architecture)
            load(path)
            running["ComfyUI"] = lambda _, path=path, load=load: load(path)
        except ImportError as error:
            absent["ComfyUI"] = str(error)
        taken = {name: seconds for name, (seconds,) in _interleaved(running, options).items()}
        cells = [f"{taken[name] * 1000:.1f}" if name in taken else "-" for name in ("safetensors", "open", "ours")]
        peer = taken.get("ComfyUI")
        cells += [f"{peer * 1000:.0f}" if peer else "-", f"{first_load(path) * 1000:.0f}"]
        ratio = [f"{taken['ours'] / taken['safetensors']:.1f}", f"{peer / taken['ours']:.1f}" if peer else "-"]
        rows.append([title, str(len(shapes)), *cells, *ratio])
        print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows, absent


def folder_of_files(options: argparse.Namespace, folder: Path) -> list[list[str]]:
    """The row of the second table: seconds for the whole folder."""
    files = collection(folder, options.files)
    entries = index_folder(folder)
    faults = [entry for entry in entries if "error" in entry]
    assert not faults, faults[0]
    running: dict[str, Callable[[int], object]] = {
        "safetensors": lambda _: [floor(file) for file in files],
        "ours": lambda _: index_folder(folder),
    }
    taken = {name: seconds for name, (seconds,) in _interleaved(running, options, rounds=3).items()}
    tensors = sum(entry["tensors"]["total"] for entry in json.loads(json.dumps(entries)))
    per_file = taken["ours"] / len(files) * 1000
    ratio = taken["ours"] / taken["safetensors"]
    cells = [f"{taken['safetensors']:.2f}", f"{taken['ours']:.2f}", f"{per_file:.1f}", f"{ratio:.1f}"]
    return [[str(len(files)), f"{tensors:,}", *cells]]


def _interleaved(
    running: dict[str, Callable[[int], object]], options: argparse.Namespace, rounds: int | None = None
) -> dict[str, list[float]]:
    contenders = {name: _dropped(run) for name, run in running.items()}
    return interleave(contenders, 1, rounds or options.rounds, clock=CLOCKS[options.clock])


def _dropped(run: Callable[[int], object]) -> Callable[[int], None]:
    """What a contender returns is dropped before the clock stops."""

    def silent(portion: int) -> None:
        run(portion)

    return silent


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensors", type=int, default=2000)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu: on a busy machine")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # nothing here computes; a pool of threads would only wait
    with tempfile.TemporaryDirectory() as folder:
        single, many = Path(folder, "one"), Path(folder, "many")
        single.mkdir()
        many.mkdir()
        rows, absent = one_file(options, single)
        index = folder_of_files(options, many)
    unit = "CPU time" if options.clock == "cpu" else "Time"
    head = ["file", "tensors", "safetensors, ms", "open, ms", "ours, ms", "ComfyUI, ms", "first of a process, ms"]
    head += ["ours / safetensors", "ComfyUI / ours"]
    body = "\n".join(
        [
            f"`{shlex.join(['python', 'benchmarks/load.py', *arguments])}`",
            "",
            f"{unit}, median of {options.rounds} interleaved rounds. {machine()}; {versions('torch', 'safetensors')}.",
            *(f"Not measured: {name} ({reason})." for name, reason in absent.items()),
            "",
            "Header to report of one file:",
            "",
            table(head, rows),
            "",
            "Index of a folder, no tensor read (median of 3 rounds):",
            "",
            table(
                ["files", "tensors", "safetensors, s", "ours, s", "ours, ms a file", "ours / safetensors"],
                index,
            ),
        ]
    )
    print(body)
    if options.write:
        write_section("Loading: header to report, and an index of a folder", body)


if __name__ == "__main__":
    main(sys.argv[1:])
