"""ComfyUI takes a checkpoint of a row's names and shapes for a model of its own, and builds just these.

So a family of which no inventory is at hand is checked too. The host needs shapes alone: matrices are on the meta
device, and the largest model takes no memory.
"""

from __future__ import annotations

import json

import pytest

from host_harness.environment import HostEnvironment
from lora_core.architectures import ARCHITECTURES, Architecture, Component
from lora_core.types import Shape

# What ComfyUI alone does not load: a module for other packs, and the model of this repository's demo.
OTHERS = ("sd15_motion", "loom_demo")
ROWS = [row for row in ARCHITECTURES if row.name not in OTHERS]
FAMILIES = [row for row in ROWS if not row.variant_of]
# In the host's encoders, and read by no family: CLIP's scale and projection, the eye of Qwen3-VL, the head of Qwen3 8B.
UNREAD = ("logit_scale", "transformer.text_projection.weight", "transformer.visual.", "transformer.model.lm_head.")
# In published files, and not in the host's encoders: from states to words.
HEADS = ("lm_head.weight",)

# row -> part -> key -> shape
Built = dict[str, dict[str, dict[str, Shape]]]

CODE = """
import json, sys
from pathlib import Path
import torch
from comfy import model_detection

def tensors(shapes):
    # The host looks into some norms, to tell what is predicted.
    return {key: torch.zeros(shape, device="cpu" if len(shape) == 1 else "meta") for key, shape in shapes.items()}

def shapes(module):
    return {key: list(tensor.shape) for key, tensor in module.state_dict().items()}

torch.set_grad_enabled(False)
built = {}
for name, given in json.loads(Path(sys.argv[1]).read_text()).items():
    denoiser = tensors(given["denoiser"])
    config = model_detection.model_config_from_unet(denoiser, "")
    assert config is not None, name
    built[name] = {"denoiser": shapes(config.get_model(denoiser, "", device="meta").diffusion_model)}
    if given["encoders"]:
        target = config.clip_target(tensors(given["encoders"]))
        built[name]["encoders"] = shapes(target.clip(device="meta", dtype=torch.bfloat16, **target.params))
Path(sys.argv[2]).write_text(json.dumps(built))
"""


def stored(component: Component, prefix: str = "") -> dict[str, Shape]:
    """Names and shapes in a file."""
    return {
        prefix + module.keys(parameter)[0]: shape
        for module in component.modules.values()
        for parameter, shape in module.shapes.items()
    }


def encoders(row: Architecture) -> dict[str, Shape]:
    """Names and shapes of all text encoders in an all-in-one file, by which the host tells what to build."""
    parts = (stored(component, f"text_encoders.{component.host_prefix}") for component in row.components[1:])
    return {key: shape for part in parts for key, shape in part.items()}


@pytest.fixture(scope="module")
def built(comfy_environment: HostEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What the host builds of each row's names and shapes; the text encoders of each family once."""
    given = {
        row.name: {"denoiser": stored(row.components[0]), "encoders": encoders(row) if row in FAMILIES else {}}
        for row in ROWS
    }
    folder = tmp_path_factory.mktemp("host")
    asked, answer = folder / "asked.json", folder / "answer.json"
    asked.write_text(json.dumps(given))
    comfy_environment.run_code(CODE, str(asked), str(answer))
    return {
        name: {part: {key: tuple(shape) for key, shape in shapes.items()} for part, shapes in parts.items()}
        for name, parts in json.loads(answer.read_text()).items()
    }


def in_the_host(component: Component, theirs: dict[str, Shape], prefix: str = "") -> dict[str, Shape]:
    """A component's names as the host has them: it calls some parameters otherwise."""
    return {
        next((name for name in names if prefix + name in theirs), names[0]): shape
        for module in component.modules.values()
        for parameter, shape in module.shapes.items()
        for names in (module.keys(parameter),)
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_host_builds_the_model_of_a_row(row: Architecture, built: Built) -> None:
    theirs = built[row.name]["denoiser"]
    assert in_the_host(row.components[0], theirs) == theirs


@pytest.mark.parametrize("row", FAMILIES, ids=lambda row: row.name)
def test_the_host_builds_the_text_encoders_of_a_row(row: Architecture, built: Built) -> None:
    theirs = built[row.name]["encoders"]
    ours = {
        component.host_prefix + name: shape
        for component in row.components[1:]
        for name, shape in in_the_host(component, theirs, component.host_prefix).items()
        if name not in HEADS
    }
    rest = {key.partition(".")[2] for key in theirs.keys() - ours.keys()}
    assert ours == {key: theirs.get(key) for key in ours}
    assert {key for key in rest if not key.startswith(UNREAD)} == set()
