"""Real files of every family in every format that is written: all of it is there again, and the host takes all of it.

One LoRA of each family and format, its names and shapes alone (``meta`` tensors). The host loads what is written with
its own loader (``host_loads.py`` runs in its Python); where it puts a tensor must be where the delta goes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

import inventories
from host_harness.environment import HostEnvironment
from inventories import ALL, family, parts, reliable
from lora_core import Adapter, map_source
from lora_core.architectures import ARCHITECTURES, Architecture
from lora_core.convert import WRITERS, Conversion, convert
from lora_core.formats.peft import CONFIG_KEY
from lora_core.io import TensorDict
from lora_core.io.dtypes import TORCH_DTYPES
from lora_core.types import DENOISER, Shape, Target

HOST_CODE = Path(__file__).parents[1] / "host_loads.py"
# Families whose models the host does not have.
NOT_IN_THE_HOST = {"sd15_motion"}
# Families of which the host knows diffusers' names with PEFT's suffixes.
UNDER_DIFFUSERS_NAMES = {"flux", "sd3", "sd35_large", "sd35_medium", "qwen_image", "z_image"}


def samples() -> list[Path]:
    """One LoRA (or LoCon) of each family and format."""
    chosen: dict[tuple[str, str], Path] = {}
    for path in ALL:
        if parts(path)[2] in ("lora", "locon") and reliable(path):
            chosen.setdefault((family(path), inventories.FORMATS[parts(path)[1]]), path)
    return list(chosen.values())


SAMPLES = samples()
# What a file has besides LoRA that only some formats can say.
BEYOND = {
    "flux__bfl-control__lora_depth": {"diffusers", "peft"},  # whole norms
    "hunyuan-video__comfy__lora": {"diffusers", "peft"},  # differences of biases
}
CASES = [
    (path, format)
    for path in SAMPLES
    for format in WRITERS
    if format not in BEYOND.get(path.stem, ())
]  # fmt: skip


def read_by_the_host(path: Path, format: str) -> bool:
    """A folder of PEFT's is not: it would be read without adapter_config.json, at another scale."""
    return format in ("kohya", "comfy") or (format == "diffusers" and family(path) in UNDER_DIFFUSERS_NAMES)


@lru_cache(maxsize=64)
def mapped(path: Path) -> Adapter:
    return map_source(inventories.source(inventories.read(path), path.stem))


@lru_cache(maxsize=256)
def converted(path: Path, format: str) -> Conversion:
    return convert(mapped(path), format)


def tensors(made: Conversion, component: str) -> dict[str, torch.Tensor]:
    """Alphas and shapes have numbers, the rest is ``meta``."""
    (content,) = (one for one in made.contents if one.component == component)
    return {
        key: stored.load()
        if key.endswith((".alpha", ".reshape_weight"))
        else torch.empty(stored.shape, dtype=TORCH_DTYPES[stored.dtype], device="meta")
        for key, stored in content.tensors.items()
    }


def read_back(path: Path, format: str) -> list[Adapter]:
    made = converted(path, format)
    found: list[Adapter] = []
    for content in made.contents:
        metadata = dict(content.metadata) | ({CONFIG_KEY: json.dumps(content.config)} if content.config else {})
        source = TensorDict(tensors(made, content.component), path.stem, metadata)
        found.append(map_source(source, architecture=mapped(path).architecture))
    return found


def scales(adapters: list[Adapter]) -> dict[Target, set[float]]:
    """Parameter -> scales of its deltas."""
    found: dict[Target, set[float]] = defaultdict(set)
    for adapter in adapters:
        for target, delta in adapter.deltas:
            found[target.whole].add(round(delta.scale, 5))  # an alpha is a float32
    return found


def rows(adapters: list[Adapter]) -> dict[Target, set[int]]:
    """Parameter -> rows that are changed; all of them as an empty set."""
    found: dict[Target, set[int]] = defaultdict(set)
    for adapter in adapters:
        row = ARCHITECTURES.get(adapter.architecture)
        for target, _ in adapter.deltas:
            shape = row.shape(target.whole) or (1,)
            part = target.slice
            found[target.whole].update(range(part.start, part.start + part.length) if part else range(shape[0]))
    return found


@pytest.mark.parametrize(("path", "format"), CASES, ids=lambda value: getattr(value, "stem", value))
def test_everything_is_there_again(path: Path, format: str) -> None:
    before, after = [mapped(path)], read_back(path, format)

    assert [adapter.report.format for adapter in after] == [format] * len(after)
    assert all(adapter.report.complete and not adapter.report.ignored for adapter in after)
    changed, again = rows(before), rows(after)
    assert changed.keys() == again.keys()
    # A name for more rows than the file changes holds zeros for the others.
    assert all(changed[target] <= again[target] for target in changed)
    expected = {target: {1.0} for target in changed} if format == "diffusers" else scales(before)
    assert scales(after) == expected


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_only_known_files_hold_what_a_format_cannot_say(path: Path) -> None:
    """So that the list of what is left out above is no longer than it has to be."""
    beyond = BEYOND.get(path.stem, set())
    for format in beyond:
        with pytest.raises(ValueError, match="cannot be written in the format"):
            convert(mapped(path), format)


@pytest.fixture(scope="session")
def host(comfy_environment: HostEnvironment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("written")
    families = {mapped(path).architecture for path in SAMPLES}
    wanted = {
        "models": {name: weights(ARCHITECTURES.get(name)) for name in sorted(families)},
        "files": {
            f"{path.stem} {format}": (
                mapped(path).architecture,
                {key: list(tensor.shape) for key, tensor in tensors(converted(path, format), "").items()},
            )
            for path, format in CASES
            if read_by_the_host(path, format)
        },
    }
    (folder / "wanted.json").write_text(json.dumps(wanted))
    comfy_environment.run_code(HOST_CODE.read_text(), str(folder / "wanted.json"), str(folder / "answer.json"))
    return json.loads((folder / "answer.json").read_text())


def weights(row: Architecture) -> dict[str, dict[str, Shape]]:
    """The denoiser's keys, and the text encoders' as the host has them."""
    found: dict[str, dict[str, Shape]] = {"unet": {}, "text": {}}
    for component in row.components:
        kind, prefix = ("unet", "") if component.name == DENOISER else ("text", component.host_prefix)
        for module in component.modules.values():
            for parameter, shape in module.shapes.items():
                # what the host makes of Flux's names when it loads a checkpoint
                name = module.keys(parameter)[0].replace("_norm.scale", "_norm.weight")
                found[kind][prefix + name] = shape
    return found


@pytest.mark.parametrize(
    ("path", "format"),
    [case for case in CASES if read_by_the_host(*case)],
    ids=lambda value: getattr(value, "stem", value),
)
def test_the_host_takes_every_tensor_and_puts_it_where_we_do(path: Path, format: str, host: dict[str, Any]) -> None:
    if mapped(path).architecture in NOT_IN_THE_HOST:
        assert host["models"][mapped(path).architecture] is None
        return
    theirs: dict[str, set[tuple[str, Any]]] = defaultdict(set)
    for key, part, function, names in host["files"][f"{path.stem} {format}"]:
        for name in names:
            theirs[name].add((key, part and tuple(part), function))
    (adapter,) = read_back(path, format)
    row = ARCHITECTURES.get(adapter.architecture)
    wrong: list[str] = []
    for target, delta in adapter.deltas:
        component, module = row.component(target.module.component), row.module(target.module)
        assert component is not None
        assert module is not None
        names = {component.host_prefix + name for name in module.keys(target.parameter)}
        for key in delta.tensor_names:
            places = {(name, part) for name, part, function in theirs[key] if function is None}
            if not any((name, target.slice and tuple(target.slice)) in places for name in names) and not any(
                function for _, _, function in theirs[key]  # swapped halves: the host turns the rows itself
            ):  # fmt: skip
                wrong.append(f"{key}: here {target}, in the host {theirs[key]}")
    assert wrong == []
