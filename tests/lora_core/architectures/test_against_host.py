"""Transformers against the host: the parameters of its classes, and its key map, name by name and row by row."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from host_harness.environment import HostEnvironment
from lora_core.architectures import ARCHITECTURES, Component
from lora_core.architectures.recognise import recognise
from lora_core.formats import FORMATS
from lora_core.formats.base import Located
from lora_core.types import DENOISER, Shape, Slice

pytestmark = pytest.mark.host

# Family -> inventory of a checkpoint, and what its keys begin with. Add a family's row here.
CHECKPOINTS = {
    "flux": ("flux-dev__comfy-allinone", "model.diffusion_model."),
    "flux_schnell": ("flux-schnell__native", ""),
    "chroma": ("chroma__native", ""),
    "flux2": ("flux2-dev__native", ""),
    "flux2_klein_4b": ("flux2-klein-4b__native", ""),
    "flux2_klein_9b": ("flux2-klein-9b__native", ""),
    "sd3": ("sd3-medium__comfy-allinone", "model.diffusion_model."),
    "sd35_medium": ("sd35-medium__native", ""),
    "sd35_large": ("sd35-large__comfy", "model.diffusion_model."),
}

# Runs in the host's Python: builds each family's model without memory; prints its parameters and its key map, whose
# values are [key, start, length, swapped].
HOST_SIDE = """
import json, sys, torch
import comfy.lora, comfy.model_detection

def place(value):
    if isinstance(value, str):
        return [value, None, None, False]
    key, rows, *function = value
    assert rows is None or rows[0] == 0
    start, length = (None, None) if rows is None else rows[1:]
    return [key, start, length, bool(function)]

for name, (file, prefix) in json.loads(sys.argv[1]).items():
    shapes = json.load(open(file))["tensors"]
    meta = {k[len(prefix):]: torch.empty(s, device="meta") for k, s in shapes.items() if k.startswith(prefix)}
    config = comfy.model_detection.model_config_from_unet(meta, "")
    model = config.get_model({}, "", device=torch.device("meta"))
    found = {key: list(value.shape) for key, value in model.state_dict().items()}
    table = comfy.lora.model_lora_keys_unet(model, {})
    print("MODEL", json.dumps([name, found, {key: place(value) for key, value in table.items()}]))
"""

Place = tuple[str, "int | None", "int | None", bool]


@pytest.fixture(scope="module")
def hosts(comfy_environment: HostEnvironment, keys: Path) -> dict[str, tuple[dict[str, Shape], dict[str, Place]]]:
    """Family -> the host's parameters with shapes, and its table of LoRA name -> place."""
    files = {name: (str(keys / "base" / f"{file}.json"), prefix) for name, (file, prefix) in CHECKPOINTS.items()}
    lines = comfy_environment.run_code(HOST_SIDE, json.dumps(files)).splitlines()
    found: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        json.loads(line.removeprefix("MODEL ")) for line in lines if line.startswith("MODEL ")
    ]
    return {
        name: (
            {key: tuple(shape) for key, shape in shapes.items() if key.startswith("diffusion_model.")},
            {key: tuple(place) for key, place in table.items()},
        )
        for name, shapes, table in found
    }


def denoiser(name: str) -> Component:
    component = ARCHITECTURES.get(name).component(DENOISER)
    assert component is not None
    return component


families = pytest.mark.parametrize("name", CHECKPOINTS)
Hosts = Mapping[str, tuple[Mapping[str, Shape], Mapping[str, Place]]]


@families
def test_parameters_are_those_of_the_hosts_class(name: str, hosts: Hosts):
    found, _ = hosts[name]
    component = denoiser(name)

    reached: set[str] = set()
    for module in component.modules.values():
        for parameter, shape in module.shapes.items():
            key = next(key for key in module.keys(parameter) if component.host_prefix + key in found)
            assert found[component.host_prefix + key] == shape
            reached.add(component.host_prefix + key)
    assert found.keys() == reached
    assert recognise(found, {"diffusion_model"}) is ARCHITECTURES.get(name)


def place_of(component: Component, located: Located, key: str) -> Place | None:
    """Our place of a parameter as the host's table has it; None where it is not the host's ``key`` at all."""
    parts = located.parts
    module = component.modules[parts[0].module.path]
    keys = {component.host_prefix + key: shape for own, shape in module.shapes.items() for key in module.keys(own)}
    if key not in keys:
        return None
    if len(parts) == 1:
        rows = parts[0].slice
        return key, rows and rows.start, rows and rows.length, False
    # Shift and scale the other way round.
    half = keys[key][0] // 2
    assert [part.slice for part in parts] == [Slice(0, half, half), Slice(0, 0, half)]
    return key, None, None, True


# Names in the host's table that no program writes: parameters in place of modules, and what its own reader of USO's
# files makes of them.
UNWRITTEN = re.compile(r"\.bias$|\.linear1_qkv$")


def numberless(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def names_of(family: str) -> dict[str, Located]:
    """LoRA name -> place, of all formats."""
    architecture = ARCHITECTURES.get(family)
    return {name: located for scheme in FORMATS for name, located in scheme.names(architecture).items()}


@families
def test_names_mean_what_they_mean_to_the_host(name: str, hosts: Hosts):
    """Wherever the host has a name for a parameter, we have it, for the same rows."""
    found, table = hosts[name]
    component, names = denoiser(name), names_of(name)

    theirs = {key: place for key, place in table.items() if place[0] in found}
    ours = {key: place_of(component, names[key], place[0]) for key, place in theirs.items() if key in names}

    assert ours == {key: theirs[key] for key in ours}
    assert len(ours) > 5 * len(component.modules)
    # The host lists FLUX.2's names for FLUX.1 as well, and the other way round.
    relatives = {numberless(key) for family in ("flux", "flux2") for key in names_of(family)}
    rest = [key for key in theirs.keys() - ours.keys() if not UNWRITTEN.search(key)]
    assert [key for key in rest if numberless(key) not in relatives] == []
