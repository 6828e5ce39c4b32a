"""The host's own words: its modules are those of our rows, and its loader puts every change where ours does.

The host detects a model from the names and shapes of a row, makes its own modules from what it detected, and loads each
inventory with its own loader (``host_loads.py`` runs in its Python). Where it loads a tensor, the place must be ours,
rows of fused matrices included; what it does not load at all is counted.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import inventories
from host_harness.environment import HostEnvironment
from inventories import ALL, family, parts, reliable
from lora_core import Adapter, map_source
from lora_core.architectures import ARCHITECTURES, Architecture
from lora_core.architectures.spec import parameter_name
from lora_core.fitting import group_keys, names_of
from lora_core.formats import FORMATS, Located
from lora_core.types import DENOISER, ModuleKey, Shape, Slice

pytestmark = pytest.mark.host

HOST_CODE = Path(__file__).with_name("host_loads.py")
Answer = dict[str, Any]

UNKNOWN = {
    "sd15_motion": "AnimateDiff is an extension of the host, not a model of it",
    "loom_demo": "the host takes no UNet with one residual block a level",
}
# Parameters of the host's modules that no LoRA and no row has.
NOT_OURS = {
    ".logit_scale": "CLIP's temperature, unused; the host gives one to every text encoder",
    "clip_l.transformer.text_projection.weight": "of SD 1.5 and Flux, whose files have none: the host fills in ones",
    "qwen3_8b.transformer.model.lm_head.weight": "a head that encodes no prompt",
    "qwen3vl_4b.transformer.visual.": "Krea 2's encoder sees too; prompts do not pass there",
}
# And the other way round.
NOT_THE_HOSTS = {"qwen25_7b.transformer.lm_head.weight": "in the published file; the host leaves it out"}
STUMBLES = {"sdxl__kohya-ldm__locon_per-layer-rank": "KeyError: an up factor without its down factor"}
# What the host does otherwise than we, with the reason.
DEVIATIONS: dict[str, str] = {}


class Put(NamedTuple):
    """Where a tensor's change goes: the parameter, by all names that it has, and the part of it."""

    names: tuple[str, ...]
    part: Slice | None


def mapped(path: Path) -> Adapter:
    return map_source(inventories.source(inventories.read(path), path.stem))


def model_of(path: Path) -> str:
    """The architecture that a file is loaded on."""
    return mapped(path).architecture if reliable(path) else family(path)


def weights(row: Architecture) -> dict[str, dict[str, Shape]]:
    """The denoiser's keys, and the text encoders' as the host has them."""
    found: dict[str, dict[str, Shape]] = {"unet": {}, "text": {}}
    for component in row.components:
        kind, prefix = ("unet", "") if component.name == DENOISER else ("text", component.host_prefix)
        for path, module in component.modules.items():
            for parameter, shape in module.shapes.items():
                found[kind][prefix + parameter_name(path, parameter)] = shape
    return found


@pytest.fixture(scope="session")
def host(comfy_environment: HostEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    folder = tmp_path_factory.mktemp("parity")
    wanted = {
        "models": {row.name: weights(row) for row in ARCHITECTURES},
        "files": {path.stem: (model_of(path), inventories.read(path)["tensors"]) for path in ALL},
    }
    (folder / "wanted.json").write_text(json.dumps(wanted))
    comfy_environment.run_code(HOST_CODE.read_text(), str(folder / "wanted.json"), str(folder / "answer.json"))
    return json.loads((folder / "answer.json").read_text())


@pytest.mark.parametrize("row", ARCHITECTURES, ids=lambda row: row.name)
def test_the_hosts_own_modules_are_those_of_the_row(row: Architecture, host: Answer) -> None:
    """Denoiser and text encoders, every parameter and its shape, as the host makes them from what it detects."""
    answer = host["models"][row.name]
    if row.name in UNKNOWN:
        assert answer is None
        return
    theirs = {key: tuple(shape) for key, shape in answer["own"].items()}
    for component in row.components:
        for path, module in component.modules.items():
            for parameter, shape in module.shapes.items():
                names = [component.host_prefix + key for key in module.keys(parameter)]
                found = [theirs.pop(name) for name in names if name in theirs]
                assert found == [shape] or names[0] in NOT_THE_HOSTS, (path, parameter)
    assert {key for key in theirs if not any(text in key for text in NOT_OURS)} == set()


@pytest.mark.parametrize("row", ARCHITECTURES, ids=lambda row: row.name)
def test_a_name_that_both_have_means_the_same(
    row: Architecture, host: Answer, record_property: Callable[[str, object], None]
) -> None:
    """All names in the host's key maps, for rows of fused matrices and swapped halves too, not only those of files."""
    if row.name in UNKNOWN:
        return
    tables = [names_of(form.name, row.name, reading) for form in FORMATS for reading in range(1 + len(form.readings))]
    same, differ = 0, {}
    for name, place in host["models"][row.name]["names"].items():
        here = [table[name] for table in tables if name in table]
        if any(means(row, located, *place) for located in here):
            same += 1
        elif here:
            differ[name] = place
    record_property("names that mean the same", same)
    assert same > 0
    assert differ == {}


def means(row: Architecture, located: Located, key: str, part: list[int] | None, function: str | None) -> bool:
    """Whether a name's place here is the host's."""
    places = [
        (names, found.slice)
        for found in located.parts
        for module in [row.module(found.module)]
        for parameter in (module.shapes if module else ())
        if key in (names := put(row, found.module, parameter, found.slice).names)
    ]
    if function == "swap_scale_shift" and len(places) == len(located.parts) == 2:
        first, second = (slice for _, slice in places)
        return bool(first and second and second.start == 0 and first.start == second.length == first.length)
    return function is None and [slice for _, slice in places] == [part and Slice(*part)]


def our_places(path: Path) -> list[tuple[tuple[str, ...], Put]]:
    """(keys of the file, place) of every change, in order."""
    source = inventories.source(inventories.read(path), path.stem)
    if reliable(path):
        adapter = mapped(path)
        row = ARCHITECTURES.get(adapter.architecture)
        return [(delta.tensor_names, put(row, *target)) for target, delta in adapter.deltas]
    # A sample whose shapes fit no model: its names alone.
    row, scheme = ARCHITECTURES.get(family(path)), FORMATS.get(inventories.FORMATS[parts(path)[1]])
    names = names_of(scheme.name, row.name)
    return [
        (tuple(ref.name for role, ref in roles.items() if role != "alpha"), put(row, part.module, "weight", part.slice))
        for name, roles in group_keys(source, scheme).modules.items()
        for part in names[name].parts
    ]


def put(row: Architecture, key: ModuleKey, parameter: str, part: Slice | None) -> Put:
    component, module = row.component(key.component), row.module(key)
    assert component is not None
    assert module is not None
    return Put(tuple(component.host_prefix + name for name in module.keys(parameter)), part)


def host_places(answer: Iterable[Any]) -> dict[str, list[tuple[str, Slice | None]]]:
    """Key of the file -> places where the host's loader puts it."""
    found: dict[str, list[tuple[str, Slice | None]]] = defaultdict(list)
    for key, part, function, names in answer:
        assert function is None, f"{key}: the host changes what it loads by {function}"
        for name in names:
            found[name].append((key, part and Slice(*part)))
    return found


def loaded(path: Path, host: Answer) -> tuple[int, int, list[str]]:
    """Changes of which the host loads every tensor, all changes, and tensors that it puts elsewhere."""
    theirs = host_places(host["files"][path.stem])
    ours: dict[str, list[Put]] = defaultdict(list)
    known = 0
    places = our_places(path)
    for keys, place in places:
        known += all(key in theirs for key in keys)
        for key in keys:
            ours[key].append(place)
    differ = [
        f"{key}: here {places}, in the host {theirs[key]}"
        for key, places in ours.items()
        if key in theirs and not same(places, theirs[key])
    ]
    return known, len(places), differ


def same(ours: list[Put], theirs: list[tuple[str, Slice | None]]) -> bool:
    return len(ours) == len(theirs) and all(
        key in own.names and part == own.part for own, (key, part) in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_same_place_as_the_host(path: Path, host: Answer, record_property: Callable[[str, object], None]) -> None:
    answer = host["files"][path.stem]
    if isinstance(answer, str):
        assert path.stem in STUMBLES or model_of(path) in UNKNOWN, answer
        return
    known, total, differ = loaded(path, host)
    record_property("changes that the host loads", f"{known} of {total}")
    assert total > 0
    assert differ == [] or path.stem in DEVIATIONS


def test_how_many_files_the_host_loads(host: Answer) -> None:
    """Files of which it loads all changes with all their tensors, some, none, and those that it cannot read."""
    counts: Counter[str] = Counter()
    for path in ALL:
        if isinstance(host["files"][path.stem], str):
            counts["error"] += 1
            continue
        known, total, _ = loaded(path, host)
        counts["whole" if known == total else "part" if known else "none"] += 1
    assert counts == {"whole": 86, "part": 12, "none": 33, "error": 2}
