"""LoRA files for ``load.py``: true headers of real names and shapes, and a hole on the disk where tensors would be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

from lora_core.architectures import ARCHITECTURES, Architecture
from lora_core.architectures.spec import Component
from lora_core.types import DENOISER

Header = dict[str, list[int]]  # name -> shape, all F16

METADATA = {"ss_output_name": "bench", "ss_network_dim": "16", "modelspec.trigger_phrase": "ink style"}


def kohya(component: Component, path: str) -> tuple[str, str, str, str | None] | None:
    """Name of the module, what follows it for down, up and alpha; None where the naming has none for it."""
    return f"{component.kohya_prefixes[0]}_{path.replace('.', '_')}", "lora_down.weight", "lora_up.weight", "alpha"


def comfy(component: Component, path: str) -> tuple[str, str, str, str | None] | None:
    """Of the denoiser alone."""
    return (f"diffusion_model.{path}", "lora_A.weight", "lora_B.weight", None) if component.name == DENOISER else None


NAMINGS = {"kohya": kohya, "comfy": comfy}


def header(architecture: Architecture, naming: str, tensors: int, rank: int = 16) -> Header:
    """About so many tensors: the family's matrices kind by kind (all ``to_q``, then all ``to_k``), as trainers take
    them, those of the denoiser first."""
    found: Header = {}
    for component in architecture.components:
        kinds: dict[str, list[str]] = {}
        for path, module in component.modules.items():
            if len(module.shapes.get("weight", ())) == 2:
                kinds.setdefault(re.sub(r"\b\d+\b", "*", path), []).append(path)
        for paths in sorted(kinds.values(), key=len, reverse=True):
            if len(found) >= tensors:
                return found
            for path in paths:
                names = NAMINGS[naming](component, path)
                if names is None:
                    continue
                name, down, up, alpha = names
                out, into = component.modules[path].shapes["weight"]
                found |= {f"{name}.{down}": [rank, into], f"{name}.{up}": [out, rank]}
                if alpha:
                    found[f"{name}.{alpha}"] = []
    return found


def write(path: Path, shapes: Header) -> Path:
    """A safetensors file whose data is a hole: it has its size, and takes a page of the disk."""
    table: dict[str, object] = {"__metadata__": METADATA}
    end = 0
    for name, shape in shapes.items():
        size = 2
        for number in shape:
            size *= number
        table[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(table).encode()
    with path.open("wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        handle.truncate(8 + len(text) + end)
    return path


def collection(folder: Path, count: int) -> list[Path]:
    """Files as a user has them: all families in turn, both namings, from 100 to 1,500 tensors."""
    sizes = cycle((100, 300, 600, 900, 1500))
    kinds = [(row, naming) for row in ARCHITECTURES for naming in NAMINGS]

    def files() -> Iterator[Path]:
        for number, (row, naming) in enumerate(cycle(kinds)):
            shapes = header(row, naming, next(sizes))
            yield write(folder / f"{number:04}_{row.name}_{naming}.safetensors", shapes)

    return list(islice(files(), count))
