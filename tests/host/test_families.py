"""LoRAs on the host's models of every family: which is recognised, that all of a LoRA is taken, and the numbers.

The models have their real shapes and no memory; a few weights of each get numbers, and the host patches them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from host_harness.environment import HostEnvironment
from lora_core.architectures import ARCHITECTURES, Architecture, Component
from lora_core.types import Shape

pytestmark = [pytest.mark.host, pytest.mark.timeout(1200)]

# What ComfyUI alone does not load: a module for other packs, and the model of this repository's demo.
OTHERS = ("sd15_motion", "loom_demo")
# In Qwen-Image's file of its text encoder and not in the host's: from states to words.
HEAD = "text_encoder.lm_head"
NOTE = "{} of the CLIP is no text encoder of {}: it stays as it is"
ROWS = [row for row in ARCHITECTURES if row.name not in OTHERS]

# MODEL, CLIP, only its encoders of this name, LoRA -> notes, encoders that are changed, components that are absent.
ODD = {
    ("chroma", "flux", "", "chroma"): ([NOTE.format("clip_l", "Chroma")], ["t5xxl"], []),
    ("chroma", "flux", "", "flux"): ([NOTE.format("clip_l", "Chroma")], ["t5xxl"], ["text_encoder"]),
    ("sd3", "sd3", "clip_g", "sd3"): ([], ["clip_g"], ["text_encoder", "text_encoder_3"]),
    ("flux", "sd3", "t5xxl", "flux"): ([], ["t5xxl"], ["text_encoder"]),
    ("", "cascade_c", "", "cascade_c"): ([], ["clip_g"], ["denoiser"]),
    ("", "sdxl_refiner", "", "sdxl_refiner"): ([], ["clip_g"], ["denoiser"]),
    ("", "sd3", "", "sd3"): ([], ["clip_g", "clip_l", "t5xxl"], ["denoiser"]),
}

CODE = """
import asyncio, importlib, importlib.util, json, sys
from pathlib import Path
import torch, comfy.sd, comfy.utils
from comfy import model_detection
from comfy.model_patcher import ModelPatcher
root = Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("pack_x_y", root / "__init__.py")
pack = sys.modules["pack_x_y"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
asyncio.run(pack.comfy_entrypoint())
bridge = importlib.import_module("pack_x_y.nodes._bridge")
core = importlib.import_module("pack_x_y.lora_core")
io = importlib.import_module("pack_x_y.lora_core.io")
architectures = importlib.import_module("pack_x_y.lora_core.architectures").ARCHITECTURES
CPU = torch.device("cpu")

def tensors(shapes):
    # The host looks into some norms, to tell what is predicted.
    return {key: torch.zeros(shape, device="cpu" if len(shape) == 1 else "meta") for key, shape in shapes.items()}

def patcher(module):
    return ModelPatcher(module, load_device=CPU, offload_device=CPU)

def clip_of(target):
    clip = comfy.sd.CLIP(no_init=True)
    clip.cond_stage_model = target.clip(device="meta", dtype=torch.float32, **target.params)
    clip.patcher = patcher(clip.cond_stage_model)
    clip.tokenizer = clip.layer_idx = clip.apply_hooks_to_conds = None
    clip.tokenizer_options, clip.use_clip_schedule = {}, False
    return clip

def ones(*shape):
    return torch.ones(1).expand(shape)  # the memory of one number

def lora(row):
    \"\"\"A LoRA of rank 1 on every matrix and every convolution, which adds 1 to each number.\"\"\"
    found = {}
    for component in row.components:
        for path, module in component.modules.items():
            for name, (out, *inner) in ((name, shape) for name, shape in module.shapes.items() if name == "weight"):
                if inner:
                    name = f"{component.kohya_prefixes[0]}_{path.replace('.', '_')}"
                    found[f"{name}.lora_down.weight"] = ones(1, *inner)
                    found[f"{name}.lora_up.weight"] = ones(out, 1, *(1 for _ in inner[1:]))
    return io.TensorDict(found, f"{row.name}.safetensors")

def changed(patcher):
    \"\"\"Of the two smallest patched weights what a strength of 0.5 adds, and of all the keys.\"\"\"
    keys = sorted(patcher.patches, key=lambda key: comfy.utils.get_attr(patcher.model, key).numel())
    added = set()
    for key in keys[:2]:
        weight = torch.randn(comfy.utils.get_attr(patcher.model, key).shape)
        comfy.utils.set_attr_param(patcher.model, key, weight)
        patched = patcher.patch_weight_to_device(key, device_to=CPU, return_weight=True)
        added |= {round(float(number), 4) for number in (patched - weight).flatten()[:100]}
    return sorted(added)

def parts_of(name, given, chosen=""):
    denoiser = tensors(given["denoiser"])
    config = model_detection.model_config_from_unet(denoiser, "")
    model = patcher(config.get_model(denoiser, "", device="meta"))
    chosen = {key: shape for key, shape in given["encoders"].items() if chosen in key}
    return model, clip_of(config.clip_target(tensors(chosen))) if chosen else None

def put(host, name, prefer=None):
    adapter = core.map_source(lora(architectures.get(name)), prefer=prefer)
    stack = core.Stack((core.StackEntry(adapter, core.Strengths(0.5, 0.5)),))
    return bridge.patched(host.meant_for([name]), stack)

torch.set_grad_enabled(False)
families = json.loads(Path(sys.argv[2]).read_text())
said = {}
for name, given in families.items():
    model, clip = parts_of(name, given)
    alone = bridge.read_model(model, None)
    host = bridge.read_model(model, clip)
    new_model, new_clip, binding = put(host, name, host.architecture.name)
    (report,) = binding.reports
    accepted = len(new_model.patches) + (len(new_clip.patcher.patches) if clip else 0)
    said[name] = {
        "alone": alone.architecture.name,
        "family": host.architecture.name,
        "notes": host.notes,
        "total": report.total,
        "fitting": report.fitting,
        "left": [dict(report.missing), [str(one) for one in report.misfits], dict(report.absent)],
        "accepted": accepted == len(binding.patches) > 0,
        "changed": [changed(new_model), changed(new_clip.patcher) if clip else [0.5]],
        "types": sorted({type(value[1]).__name__ for found in new_model.patches.values() for value in found}),
    }

def text(name):
    return name.startswith("text_encoder")

# Other text encoders than the family's: (MODEL, CLIP, only its encoders of this name, LoRA).
said["odd"] = []
for of_model, of_clip, chosen, name in json.loads(sys.argv[4]):
    model = parts_of(of_model, families[of_model])[0] if of_model else None
    clip = parts_of(of_clip, families[of_clip], chosen)[1]
    host = bridge.read_model(model, clip)
    _, new_clip, binding = put(host, name, host.architecture.name)
    (report,) = binding.reports
    encoders = sorted({key.partition(".")[0] for key in new_clip.patcher.patches})
    said["odd"].append([host.notes, encoders, sorted(report.absent), [*filter(text, report.missing)]])
Path(sys.argv[3]).write_text(json.dumps(said))
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
def said(comfy_environment: HostEnvironment, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("families")
    asked, answer = folder / "asked.json", folder / "answer.json"
    given = {row.name: {"denoiser": stored(row.components[0]), "encoders": encoders(row)} for row in ROWS}
    asked.write_text(json.dumps(given))
    comfy_environment.run_code(CODE, str(repository), str(asked), str(answer), json.dumps(list(ODD)), timeout=1200)
    return json.loads(answer.read_text())


def same_denoiser(row: Architecture) -> list[str]:
    """Families whose denoisers are alike to the last shape: Wan 2.1 and 2.2 for text to video."""
    return [other.name for other in ROWS if stored(other.components[0]) == stored(row.components[0])]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_lora_on_the_hosts_model(row: Architecture, said: Any) -> None:
    found = said[row.name]
    assert found["alone"] in same_denoiser(row)
    assert found["family"] in same_denoiser(row)
    assert found["notes"] == []
    missing, misfits, absent = found["left"]
    assert set(missing) <= {HEAD}
    assert (misfits, absent) == ([], {})
    assert found["fitting"] == found["total"] - len(missing) > 50
    assert found["accepted"], "the host did not take every patch"
    assert found["changed"] == [[0.5], [0.5]]
    assert found["types"] == ["LoomAdapter"]


def test_a_lora_with_other_text_encoders_than_its_familys(said: Any) -> None:
    """What the family does not have stays as it is, what is not loaded is absent; of a CLIP alone the LoRA tells."""
    assert dict(zip(ODD, said["odd"], strict=True)) == {case: [*expected, []] for case, expected in ODD.items()}
