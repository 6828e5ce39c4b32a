"""Module by module the same place as the host's own key map, wherever the host maps a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import inventories
from host_harness.environment import HostEnvironment
from inventories import SCOPE, parts
from lora_core import map_source
from lora_core.types import DENOISER, TEXT_ENCODER, TEXT_ENCODER_2, Target

pytestmark = pytest.mark.host

# Where the host keeps each component of SD 1.5 and SDXL.
HOST_PREFIX = {
    DENOISER: "diffusion_model.",
    TEXT_ENCODER: "clip_l.transformer.",
    TEXT_ENCODER_2: "clip_g.transformer.",
}

# Runs in the host's Python: its key map for a model with the names and shapes of an inventory.
KEY_MAP = """
import json, sys, torch
import comfy.lora, comfy.model_detection

unet_file, text_files = sys.argv[1], json.loads(sys.argv[2])
shapes = json.load(open(unet_file))["tensors"]
prefix = "model.diffusion_model."
unet = {k: torch.empty(s, device="meta") for k, s in shapes.items() if k.startswith(prefix)}

class Model:
    model_config = comfy.model_detection.model_config_from_unet(unet, prefix)
    def __init__(self, keys):
        self.keys = keys
    def state_dict(self):
        return dict.fromkeys(self.keys)

table = comfy.lora.model_lora_keys_unet(Model([k[len("model."):] for k in unet]), {})
text = [p + k for p, file in text_files.items() for k in json.load(open(file))["tensors"]]
table = comfy.lora.model_lora_keys_clip(Model(text), table)
print(json.dumps({k: v for k, v in table.items() if isinstance(v, str)}))
"""


@pytest.fixture(scope="session")
def host_maps(comfy_environment: HostEnvironment, keys: Path) -> dict[str, dict[str, str]]:
    """Base -> the host's table of LoRA name -> model key."""
    base = keys / "base"
    clip_l = {"clip_l.transformer.": str(base / "sd15__diffusers_text_encoder.json")}
    clip_g = {"clip_g.transformer.": str(base / "sdxl__diffusers_text_encoder_2.json")}
    wanted = {"sd15": (base / "sd15__ldm.json", clip_l), "sdxl": (base / "sdxl__sgm.json", clip_l | clip_g)}
    tables: dict[str, dict[str, str]] = {}
    for name, (unet, text) in wanted.items():
        printed = comfy_environment.run_code(KEY_MAP, str(unet), json.dumps(text))
        tables[name] = json.loads(printed.strip().splitlines()[-1])
    return tables


def host_key(target: Target) -> str:
    return f"{HOST_PREFIX[target.module.component]}{target.module.path}.weight"


def spellings(name: str) -> set[str]:
    """A module's name as the host's table spells it: old diffusers names keep .processor. and drop .0."""
    processor = name.replace(".to_", ".processor.to_")
    return {name, processor, processor.removesuffix(".0")}


@pytest.mark.parametrize("path", SCOPE, ids=lambda path: path.stem)
def test_same_module_as_the_host(path: Path, host_maps: dict[str, dict[str, str]]) -> None:
    table = host_maps[parts(path)[0]]
    report = map_source(inventories.source(inventories.read(path), path.stem)).report
    compared = 0
    for module in report.modules:
        for name in spellings(module.name) & table.keys():
            assert table[name] == host_key(module.target)
            compared += 1
    kohya = report.format == "kohya"
    weights = {module.name for module in report.modules}
    # Every kohya name is in the host's table; of diffusers' names it has the old ones and the text encoders'.
    assert compared >= len(weights) if kohya else compared > 0
