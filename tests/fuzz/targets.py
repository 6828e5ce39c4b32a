"""What strangers' bytes reach: each target takes any bytes and may raise ``LoomError`` and ``OSError``, nothing else.

Three drivers use them: ``test_targets.py`` (seeded, fast), ``guided.py`` (atheris, guided by coverage) and
``benchmarks/fuzz.py`` (whole files). ``SEEDS`` are good inputs to start from.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch

from lora_core.architectures import ARCHITECTURES
from lora_core.blocks import parse_blocks, parse_presets
from lora_core.cli.lora_option import parse_lora
from lora_core.errors import MAX_MESSAGE, LoomError
from lora_core.inspect import check_numbers, describe
from lora_core.io import TensorRef, TensorSource, open_tensors
from lora_core.io.dtypes import TORCH_DTYPES
from lora_core.io.header import read_header
from lora_core.io.pickle_content import sort_content
from lora_core.io.pickle_outline import Machine, PickleFault
from lora_core.mapping import map_source
from lora_core.metadata import read_metadata
from lora_core.names import resolve_name
from lora_core.prompt import DIALECTS, parse_prompt
from lora_core.rows import parse_rows, parse_stack
from lora_core.sidecars import READERS, read_sidecars
from lora_core.trigger_words import trigger_words

ALLOWED = (LoomError, OSError)
# Tensors of these names and shapes have values; no mapping may want those of larger ones.
_READABLE = 64


class Named(TensorSource):
    """Tensors of which only names and shapes are there."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str] | None = None) -> None:
        refs = {name: TensorRef(self, name, shape, "F16") for name, shape in shapes.items()}
        super().__init__("named", metadata or {}, refs)

    def view(self, ref: TensorRef) -> torch.Tensor:
        assert ref.numel <= _READABLE, f"mapping reads {ref}"
        return torch.full(ref.shape, 2, dtype=TORCH_DTYPES[ref.dtype])


def header(data: bytes) -> None:
    """The header of a safetensors file, in a file of the length that it wants."""
    whole = len(data).to_bytes(8, "little") + data
    ends = re.findall(rb"(\d{1,12})\]\s*\}", data)
    read_header(io.BytesIO(whole), len(whole) + max(map(int, ends), default=0), "file")


def names(data: bytes) -> None:
    """Keys and shapes, one a line: ``<key> <sizes with commas>``."""
    shapes: dict[str, tuple[int, ...]] = {}
    for line in data.decode("utf-8", "replace").splitlines()[:400]:
        key, _, sizes = line.rpartition(" ")
        numbers = [int(part) for part in sizes.split(",") if part.isascii() and part.isdigit() and len(part) < 7]
        shapes[key] = tuple(numbers[:6])
    json.dumps(describe(map_source(Named(shapes)), modules=True))


def metadata(data: bytes) -> None:
    """Texts of a header, ``key=value`` separated by NUL."""
    pairs = (part.partition("=") for part in data.decode("utf-8", "replace").split("\0"))
    texts = {key: value for key, _, value in pairs}
    read_metadata(texts)
    trigger_words(None, texts)


def settings(data: bytes) -> None:
    """PEFT's and diffusers' settings, as JSON beside the tensors."""
    text = data.decode("utf-8", "replace")
    for key, start in (("adapter_config", "base_model.model.unet."), ("lora_adapter_metadata", "unet.")):
        name = f"{start}down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
        shapes = {f"{name}.lora_A.weight": (4, 320), f"{name}.lora_B.weight": (320, 4)}
        try:
            describe(map_source(Named(shapes, {key: text})))
        except ALLOWED:
            continue


def pickle(data: bytes) -> None:
    """The instructions of a pickle."""
    try:
        sort_content(Machine(data).run())
    except PickleFault:
        return


def file(data: bytes) -> None:
    """A whole file, of whatever kind its first bytes say."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lora.safetensors")
        path.write_bytes(data)
        use(path)


def use(path: Path) -> None:
    """All that is done with a file: open, map, report, check its numbers, apply its changes."""
    source = open_tensors(path)
    for ref in source.values():
        if ref.numel <= _READABLE:
            ref.load()
    adapter = map_source(source)
    json.dumps([describe(adapter, path=path, modules=True), check_numbers(adapter, source)])
    family = ARCHITECTURES.get(adapter.architecture)
    for target, delta in adapter.deltas:
        shape = family.shape(target)
        assert shape is not None
        changed = delta.apply(torch.zeros(delta.shape_after(shape)), 0.5)
        assert changed.shape == delta.shape_after(shape), (target, changed.shape)


def blocks(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    presets: dict[str, str] = {}
    with suppress(*ALLOWED):
        presets = parse_presets(text)
    for name in ("sd15", "sdxl", "flux"):
        try:
            parse_blocks(text, ARCHITECTURES.get(name), presets)
        except ALLOWED:
            continue


def prompt(data: bytes) -> None:
    for dialect in DIALECTS:
        try:
            parse_prompt(data.decode("utf-8", "replace"), dialect)
        except ALLOWED:
            continue


def rows(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for parse in (parse_rows, parse_stack):
        for value in (text, _json(text)):
            try:
                parse(value)
            except ALLOWED:
                continue


def options(data: bytes) -> None:
    """A LoRA on the command line, and a name out of a graph."""
    text = data.decode("utf-8", "replace")
    with suppress(ValueError):  # its caller says it as wrong usage
        parse_lora(text)
    resolve_name(text, ["styles/ink.safetensors", "rain.pt", "ink v1.5.safetensors"], text)


def sidecar(data: bytes) -> None:
    """Each kind of file that may stand beside a LoRA."""
    with tempfile.TemporaryDirectory() as folder:
        for ending, _ in READERS:
            Path(folder, f"ink{ending}").write_bytes(data)
        Path(folder, "ink.safetensors.rgthree-info.json").write_bytes(data)
        read_sidecars(Path(folder, "ink.safetensors"))


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (header, names, metadata, settings, pickle, file, blocks, prompt, rows, options, sidecar)
}


def run(name: str, data: bytes) -> None:
    """One input of a target; what it may raise is silent, and all else is a fault."""
    try:
        TARGETS[name](data)
    except LoomError as error:
        if "\n" in error.message or len(error.message) > MAX_MESSAGE:
            raise ValueError(f"no one line: {error.message}") from error
    except OSError:
        return
