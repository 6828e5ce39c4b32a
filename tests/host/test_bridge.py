"""The numbers behind the nodes: what the host computes from our patches, against the library, bit by bit.

No server: the code runs in the host's Python, on the demo model.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import lora_files
from host_harness.environment import HostEnvironment
from lora_core.architectures import ARCHITECTURES

pytestmark = pytest.mark.host

CODE = """
import asyncio, importlib, importlib.util, json, os, shutil, sys
from pathlib import Path
from types import SimpleNamespace
import torch, comfy.lora, comfy.model_patcher, comfy.sd, nodes
root, folder = Path(sys.argv[1]), Path(sys.argv[2])
spec = importlib.util.spec_from_file_location("pack_x_y", root / "__init__.py")
pack = sys.modules["pack_x_y"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
asyncio.run(pack.comfy_entrypoint())
bridge = importlib.import_module("pack_x_y.nodes._bridge")
files = importlib.import_module("pack_x_y.nodes._files")
table = importlib.import_module("pack_x_y.nodes._table")
load_demo = importlib.import_module("pack_x_y.nodes._demo_model").load_demo
core = importlib.import_module("pack_x_y.lora_core")
patching = importlib.import_module("pack_x_y.lora_core.patching")
architectures = importlib.import_module("pack_x_y.lora_core.architectures").ARCHITECTURES
types = importlib.import_module("pack_x_y.lora_core.types")

def stack(*entries, **blocks):
    return core.Stack(tuple(
        core.StackEntry(core.load_adapter(folder / f"{name}.safetensors"), core.Strengths(model, clip, blocks=blocks))
        for name, model, clip in entries
    ))

def weights(family, *components):
    \"\"\"What the host's state dict of these parts of a model holds.\"\"\"
    found = {
        bridge.host_key(architectures.get(family), core.Target(key, name)): torch.empty(shape, device="meta")
        for key, module in architectures.get(family).walk() if key.component in components
        for name, shape in module.shapes.items()
    }
    return holding(found)

def holding(found):
    return SimpleNamespace(state_dict=lambda: found, named_parameters=lambda **_: (), named_modules=lambda: ())

def family(model=None, clip=None):
    \"\"\"Name of the family, or what the user is told.\"\"\"
    model = model and SimpleNamespace(model=model)
    clip = clip and SimpleNamespace(cond_stage_model=clip)
    try:
        return bridge.read_model(model, clip).architecture.name
    except ValueError as error:
        return str(error)

SAME = (("a", 0.8, 0.5), ("dora", 0.7, 0.6), ("b", -0.4, 1.0))
THREE = stack(*SAME)
said = {}
with torch.inference_mode():
    demo = load_demo(files.DEMO_MODEL, files.DEMO_MODEL)
    host = bridge.read_model(demo.model, demo.clip)
    said["architecture"] = host.architecture.name
    model, clip, binding = bridge.patched(host, THREE)
    patches = {bridge.host_key(host.architecture, target): patch for target, patch in binding.patches.items()}

    # One patch a weight, on clones; what came in has none.
    said["patches"] = [len(model.patches) + len(clip.patcher.patches), len(patches)]
    said["most for a weight"] = max(len(found) for found in [*model.patches.values(), *clip.patcher.patches.values()])
    said["parents"] = [len(demo.model.patches), len(demo.clip.patcher.patches)]

    def differing(patcher, kind):
        \"\"\"Weights in this dtype whose live patch is not the library's, to the last bit.\"\"\"
        wrong = []
        for key in patcher.patches:
            weight = comfy.utils.get_attr(patcher.model, key)
            comfy.utils.set_attr_param(patcher.model, key, weight.to(kind))
            live = patcher.patch_weight_to_device(key, device_to=torch.device("cpu"), return_weight=True)
            expected = patching.apply_patch(weight.to(kind), patches[key])
            if live.dtype != kind or not torch.equal(live, expected) or torch.equal(live, weight.to(kind)):
                wrong.append(key)
            comfy.utils.set_attr_param(patcher.model, key, weight)
        return wrong

    kinds = (torch.float32, torch.float16, torch.bfloat16)
    said["differing"] = [differing(patcher, kind) for patcher in (model, clip.patcher) for kind in kinds]

    # As the host passes patches on when weights stay in main memory: rebuilt, tensors copied, in the layer's dtype.
    wrong = []
    for key in model.patches:
        lowvram = comfy.model_patcher.LowVramPatch(key, model.patches)
        buffer = torch.empty(max(1, lowvram.memory_required()), dtype=torch.uint8)
        lowvram.prepare(buffer, None)
        for kind in (torch.float32, torch.float16):
            weight = comfy.utils.get_attr(model.model, key).to(kind, copy=True)
            moved = lowvram(weight.clone())
            if moved.dtype != kind or not torch.equal(moved, patching.apply_patch(weight, patches[key])):
                wrong.append(key)
    said["rebuilt differing"] = wrong
    said["held in buffers"] = sum(
        comfy.model_patcher.LowVramPatch(key, model.patches).memory_required() > 0 for key in model.patches
    )

    # Ids: the same for the same, another for anything else, and each its own for MODEL and CLIP.
    def ids(stack, parent=demo):
        model, clip, _ = bridge.patched(bridge.read_model(parent.model, parent.clip), stack)
        return str(model.patches_uuid), str(clip.patcher.patches_uuid)

    first, again = ids(THREE), ids(stack(*SAME))
    other_clip = ids(stack(("a", 0.8, 0.1), ("dora", 0.7, 0.6), ("b", -0.4, 1.0)))
    other_order = ids(stack(("dora", 0.7, 0.6), ("a", 0.8, 0.5), ("b", -0.4, 1.0)))
    elsewhere = ids(THREE, load_demo(files.DEMO_MODEL, files.DEMO_MODEL))
    nothing = ids(stack(("a", 0.0, 0.0)))
    said["ids"] = {
        "again": first == again,
        "clip only": (first[0] == other_clip[0], first[1] != other_clip[1]),
        "order": first[0] != other_order[0],
        "another parent": first[0] != elsewhere[0],
        "strength 0": nothing == (str(demo.model.patches_uuid), str(demo.clip.patcher.patches_uuid)),
        "on top of itself": ids(THREE, type(demo)(model, clip, None))[0] != first[0],
    }
    # The same stack with block weights, and the same name with another content.
    said["ids"]["blocks"] = len({first, *(ids(stack(*SAME, mid=mid)) for mid in (0.5, 0.25))}) == 3
    shutil.copy(folder / "a.safetensors", folder / "changing.safetensors")
    before = ids(stack(("changing", 1.0, 1.0)))
    shutil.copy(folder / "b.safetensors", folder / "changing.safetensors")  # of the same size
    os.utime(folder / "changing.safetensors", (1, 1))
    after = ids(stack(("changing", 1.0, 1.0)))
    said["ids"]["another content"] = before[0] != after[0] and before[1] != after[1]

    # The text encoders are in no block: the weight of base is theirs.
    def strengths(**blocks):
        _, _, binding = bridge.patched(host, stack(("a", 1.0, 0.5), **blocks))
        return sorted({
            part.strength for target, patch in binding.patches.items() for part in patch.parts
            if target.module.component == "text_encoder"
        })

    said["base"] = [strengths(), strengths(base=0.5), strengths(base=0.0), strengths(mid=0.0)]

    # Families, from names and shapes alone.
    unet, clip_l, clip_g = types.DENOISER, types.TEXT_ENCODER, types.TEXT_ENCODER_2
    flux = weights("sdxl", clip_l)
    flux.state_dict()["t5xxl.transformer.shared.weight"] = torch.empty(1, 1)
    said["families"] = [
        family(clip=weights("sdxl", clip_l, clip_g)),
        family(clip=weights("sd15", clip_l)),
        family(weights("sdxl", unet)),
        family(weights("sdxl", unet), weights("sdxl", clip_l, clip_g)),
        family(weights("sd15", unet), flux),
        family(weights("sd15", unet), weights("sdxl", clip_l, clip_g)),
        family(holding({"diffusion_model.out.2.weight": torch.empty(4, 320, 3, 3)})),
        family(clip=holding({"clip_x.transformer.a.weight": torch.empty(1, 1)})),
    ]
    said["foreign"] = [
        bridge.read_model(SimpleNamespace(model=weights("sd15", unet)), SimpleNamespace(cond_stage_model=clip)).notes
        for clip in (flux, weights("sdxl", clip_l, clip_g))
    ]
    # The table's norms, from factors, against differences of full size.
    adapter = core.load_adapter(folder / "a.safetensors")
    squares = {}
    for target, delta in adapter.deltas:
        component, shape = target.module.component, host.architecture.shape(target)
        block = host.architecture.block(target.module) if component == "denoiser" else component
        norm = delta.apply(torch.zeros(shape, dtype=torch.float64), 1.0).norm()
        squares[block] = squares.get(block, 0.0) + float(norm) ** 2
    norms = importlib.import_module("pack_x_y.lora_core.norms").block_norms(adapter)
    said["blocks"] = list(norms)
    said["norms"] = max(abs(norms[block] - square**0.5) / square**0.5 for block, square in squares.items())
    picture = table.draw("a", norms)
    said["table"] = [str(picture.dtype), picture.dim(), float(picture.max()) <= 1.0]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(comfy_environment: HostEnvironment, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(("a", "b")):
        parts = lora_files.factors("loom_demo", seed=seed, modules=lora_files.TRANSFORMERS + "|conv")
        lora_files.save(folder / f"{name}.safetensors", lora_files.kohya(parts, 2.0))
    parts = lora_files.factors("loom_demo", seed=7)
    lora_files.save(folder / "dora.safetensors", lora_files.with_dora(lora_files.kohya(parts), 7))
    return json.loads(comfy_environment.run_code(CODE, str(repository), str(folder)).splitlines()[-1])


def test_the_family_is_found_from_the_hosts_keys(said: Any) -> None:
    assert said["architecture"] == "loom_demo"


def test_a_weight_has_one_patch_and_what_came_in_has_none(said: Any) -> None:
    assert said["patches"][0] == said["patches"][1] > 70
    assert said["most for a weight"] == 1
    assert said["parents"] == [0, 0]


def test_live_weights_are_the_librarys_to_the_last_bit_with_a_dora_in_the_middle(said: Any) -> None:
    """MODEL and CLIP, in float32, fp16 and bf16: rounded once, as a merge does."""
    assert said["differing"] == [[]] * 6


def test_patches_that_the_host_rebuilt_elsewhere_give_the_same_weights(said: Any) -> None:
    assert said["rebuilt differing"] == []
    assert said["held in buffers"] > 40, "the factors are not where the host moves them from"


def test_the_id_of_the_patches_depends_on_parent_and_stack_alone(said: Any) -> None:
    assert said["ids"] == {
        "again": True,
        "clip only": [True, True],
        "order": True,
        "another parent": True,
        "strength 0": True,
        "on top of itself": True,
        "blocks": True,
        "another content": True,
    }


def test_the_weight_of_base_is_that_of_the_text_encoders_too(said: Any) -> None:
    assert said["base"] == [[0.5], [0.25], [], [0.5]]


def test_the_family_is_that_of_all_that_is_connected(said: Any) -> None:
    *known, own, alone = said["families"]
    assert known == ["sdxl", "sd15", "sdxl", "sdxl", "sd15", "sd15"]
    assert said["foreign"] == [
        ["t5xxl of the CLIP is no text encoder of SD 1.5: it stays as it is"],
        ["clip_g of the CLIP is no text encoder of SD 1.5: it stays as it is"],
    ]
    assert re.fullmatch(r"own_[0-9a-f]{12}", own)  # a model of no family is one of its own
    assert alone == (
        f"CLIP: its family is none of the {len(ARCHITECTURES)} that this version knows; none comes near. "
        "Load a model of another family, or report this one"
    )


def test_norms_per_block_are_those_of_the_differences(said: Any) -> None:
    inner = ("in00", "in01", "in02", "in03", "mid", "out00", "out01", "out02", "out03")
    assert said["blocks"] == ["base", *inner, "text_encoder"]
    assert said["norms"] < 1e-5
    assert said["table"] == ["torch.float32", 4, True]
