"""A LoRA that gives a layer more inputs, live: the host loads the layer at its new size and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from host_harness.environment import HostEnvironment

pytestmark = pytest.mark.host
ROOT = Path(__file__).resolve().parents[2]

CODE = """
import asyncio, importlib, importlib.util, json, sys
from pathlib import Path
import torch, comfy.lora, comfy.model_patcher
root = Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("pack_x_y", root / "__init__.py")
pack = sys.modules["pack_x_y"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
asyncio.run(pack.comfy_entrypoint())
bridge = importlib.import_module("pack_x_y.nodes._bridge")
adapters = importlib.import_module("pack_x_y.lora_core.adapters")
patching = importlib.import_module("pack_x_y.lora_core.patching")
tensors = importlib.import_module("pack_x_y.lora_core.io")
types = importlib.import_module("pack_x_y.lora_core.types")

def delta(kind, **roles):
    source = tensors.TensorDict(roles, "control.safetensors")
    group = adapters.Group("control.safetensors", "img_in", dict(source), {"weight": (6, 4)}, None)
    return adapters.ADAPTER_TYPES.get(kind).build(group)["weight"]

def part(made, strength):
    return patching.PatchPart(made, strength, None, "control.safetensors")

torch.manual_seed(0)
said = {}
with torch.inference_mode():
    model = torch.nn.Module()
    model.img_in = torch.nn.Linear(4, 6)
    base = model.img_in.weight.detach().clone()
    wide = delta("lora_wider_bfl", up=torch.randn(6, 2), wide_down=torch.randn(2, 8))
    narrow = delta("lora", up=torch.randn(6, 2), down=torch.randn(2, 4))
    target = types.Target(types.ModuleKey("denoiser", "img_in"), "weight")
    patch = patching.Patch(target, (6, 4), (part(narrow, 0.5), part(wide, 1.0), part(narrow, -0.2)))
    expected = patching.apply_patch(base, patch)
    patcher = comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
    patcher.add_patches({"img_in.weight": bridge.LoomAdapter.of(patch)}, 1.0)
    said["told"] = list(comfy.lora.calculate_shape(patcher.patches["img_in.weight"], base, "img_in.weight"))
    patcher.patch_model(torch.device("cpu"))
    said["loaded"] = list(patcher.model.img_in.weight.shape)
    said["equal"] = torch.equal(patcher.model.img_in.weight, expected)
    patcher.unpatch_model(torch.device("cpu"))
    said["restored"] = torch.equal(patcher.model.img_in.weight, base)
print("SAID" + json.dumps(said))
"""


def test_live(comfy_environment: HostEnvironment) -> None:
    """Beside an ordinary LoRA before and after it; the weight is the library's to the last bit."""
    said = json.loads(comfy_environment.run_code(CODE, str(ROOT)).split("SAID")[1])
    assert said == {"told": [6, 8], "loaded": [6, 8], "equal": True, "restored": True}
