"""Quantised models in the host: its layouts against the library's, and live patches on what it keeps quantised.

No server: the code runs in the host's Python, on the demo model with its linear layers in each of the host's formats.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lora_files
from host_harness.environment import HostEnvironment

pytestmark = [pytest.mark.host, pytest.mark.timeout(1200)]

FORMATS = {
    "float8_e4m3fn": {},
    "float8_e5m2": {},
    "mxfp8": {},
    "nvfp4": {},
    "int8_tensorwise": {},
    "int8 per row": {"per_channel": True},
    "int8 rotated": {"per_channel": True, "convrot": True},
    "convrot_w4a4": {},
}

CODE = """
import asyncio, importlib, importlib.util, json, sys
from pathlib import Path
from types import SimpleNamespace
import torch, comfy.float, comfy.lora, comfy.model_management, comfy.model_patcher, comfy.utils, nodes
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor
root, folder, formats = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
spec = importlib.util.spec_from_file_location("pack_x_y", root / "__init__.py")
pack = sys.modules["pack_x_y"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
asyncio.run(pack.comfy_entrypoint())
def part(name):
    return importlib.import_module(f"pack_x_y.{name}")
bridge, files, demo, core = part("nodes._bridge"), part("nodes._files"), part("nodes._demo_model"), part("lora_core")
patching, quantised, merge, io = (part(f"lora_core.{name}") for name in ("patching", "quantised", "merge", "io"))
source = merge.open_checkpoint(files.DEMO_MODEL)
PLAIN = {key: source.load(key) for key in source.tensors}
PREFIX, CPU = "model.diffusion_model.", torch.device("cpu")
stack = core.Stack((core.StackEntry(core.load_adapter(folder / "a.safetensors"), core.Strengths(0.8, 0.0)),))
noise, time, words = torch.randn(1, 16, 8, 8), torch.tensor([500.0]), torch.randn(1, 77, 128)

def linear(key, tensor, rotated):
    return key.startswith(PREFIX) and key.endswith(".weight") and tensor.dim() == 2 and not (
        rotated and tensor.shape[1] % 256
    )

def in_format(format, options):
    \"\"\"The demo's tensors, linear layers as the host quantises and writes them.\"\"\"
    rotated = "convrot" in options or "convrot" in format
    tensors = {}
    for key, tensor in PLAIN.items():
        if linear(key, tensor, rotated):
            scale = {} if format == "mxfp8" else {"scale": "recalculate"}
            layout = QUANT_ALGOS[format]["comfy_tensor_layout"]
            tensors |= QuantizedTensor.from_float(tensor.float(), layout, **scale, **options).state_dict(key)
            said = json.dumps({"format": format, **options}).encode()
            tensors[key.removesuffix("weight") + "comfy_quant"] = torch.tensor(list(said), dtype=torch.uint8)
        else:
            tensors[key] = tensor
    return tensors

def of_library(tensors):
    \"\"\"Key -> float32, of the quantised weights.\"\"\"
    found = quantised.find_quantised(io.TensorDict(tensors), {}, "demo").layers
    return {
        key: quantised.dequantised(layer, layer.scheme, {role: tensors[name] for role, name in layer.keys.items()})
        for key, layer in found.items()
    }

def of_host(model, key):
    return comfy.utils.get_attr(model.model, "diffusion_model." + key.removeprefix(PREFIX)).float().dequantize()

def differing(tensors, model):
    \"\"\"Weights that are not the same in the library and in the host; what pads them is left away.\"\"\"
    pairs = {key: (ours, of_host(model, key)) for key, ours in of_library(tensors).items()}
    return [key for key, (ours, theirs) in pairs.items()
            if not torch.equal(ours[tuple(slice(0, size) for size in theirs.shape)], theirs)]

def load(tensors):
    return demo._unet(files.DEMO_MODEL, dict(tensors))

def bits(tensor):
    return tensor._qdata.view(torch.uint8)

def examine(name, options):
    format = name.split()[0]
    format = "int8_tensorwise" if format == "int8" else format
    tensors = in_format(format, options)
    demo._Config.quant_config = {"mixed_ops": True}
    model = load(tensors)
    said = {"layers": len(of_library(tensors)), "dequantised differing": differing(tensors, model)}
    said["packed"] = sum(
        tuple(tensors[key].shape) != tuple(PLAIN[key].shape) for key in of_library(tensors)
    )

    # Merged in the same format, the host reads the weights that the library means.
    from safetensors.torch import save_file, load_file
    base, out = folder / "base.safetensors", folder / "out.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, base)
    measured = merge.merge_to_checkpoint(base, stack, out, overwrite=True).rounding
    merged = load_file(out)
    said["merged differing"] = differing(merged, load(merged))
    said["merge"] = max(measured[key].weight for key in of_library(tensors) if key in measured)

    host = bridge.read_model(model, None)
    patched, _, binding = bridge.patched(host, stack)
    patches = {host.key(target): patch for target, patch in binding.patches.items()}
    said["fit"] = [binding.reports[0].fitting, len(patched.patches)]
    errors, wrong, streamed = {}, [], []
    for key in patched.patches:
        weight = comfy.utils.get_attr(patched.model, key)
        live = patched.patch_weight_to_device(key, device_to=CPU, return_weight=True)
        dense = weight.float().dequantize() if isinstance(weight, QuantizedTensor) else weight
        exact = patching.apply_patch(dense, patches[key])
        if not isinstance(weight, QuantizedTensor):
            wrong += [] if torch.equal(live, exact) else [key]
            continue
        seed = comfy.utils.string_to_seed(key)
        rounded = weight.requantize_from_float(exact.clone(), scale="recalculate", stochastic_rounding=seed)
        if not torch.equal(bits(live), bits(rounded)) or torch.equal(bits(live), bits(weight)):
            wrong.append(key)
        error = (live.float().dequantize() - exact).norm()
        errors[key] = [float(error / exact.norm()), float(error / (exact - dense).norm())]
        # On their way to a layer weights are dequantised in its number type, patched, and not rounded again.
        for kind in (torch.float32, torch.float16):
            dense = weight.to(kind).dequantize()
            moved = comfy.model_patcher.LowVramPatch(key, patched.patches)(dense.clone())
            if moved.dtype != kind or not torch.equal(moved, patching.apply_patch(dense, patches[key])):
                streamed.append(key)
    said["live differing"], said["streamed differing"], said["live"] = wrong, streamed, errors
    said["report"] = host.quantised.report(patches, "a.safetensors")

    # And through the host's own loading: complete, and with all weights in main memory.
    comfy.model_management.load_models_gpu([model])
    before = model.model.diffusion_model(noise, time, context=words)
    comfy.model_management.load_models_gpu([patched])
    loaded = patched.model.diffusion_model(noise, time, context=words)
    patched.unpatch_model()
    patched.load(CPU, lowvram_model_memory=1)
    lowvram = patched.model.diffusion_model(noise, time, context=words)
    said["lowvram patches"] = patched.model.lowvram_patch_counter
    patched.unpatch_model()
    comfy.model_management.load_models_gpu([model])
    after = model.model.diffusion_model(noise, time, context=words)
    comfy.model_management.unload_all_models()
    said["moved"] = [float((one - before).norm() / before.norm()) for one in (loaded, lowvram, after)]
    return said

def plain_fp8():
    \"\"\"As a loader's choice of fp8 makes it: fp8 weights, layers that compute in a wider type.\"\"\"
    demo._Config.quant_config = None
    real = comfy.model_management.unet_dtype
    comfy.model_management.unet_dtype = lambda **_: torch.float8_e4m3fn
    model = load(PLAIN)
    comfy.model_management.unet_dtype = real
    host = bridge.read_model(model, None)
    patched, _, binding = bridge.patched(host, stack)
    patches = {host.key(target): patch for target, patch in binding.patches.items()}
    wrong, kinds = [], set()
    for key in patched.patches:
        weight = comfy.utils.get_attr(patched.model, key)
        kinds.add(str(weight.dtype))
        live = patched.patch_weight_to_device(key, device_to=CPU, return_weight=True)
        exact = patching.apply_patch(weight, patches[key], dtype=torch.float32)
        seed = comfy.utils.string_to_seed(key)
        rounded = comfy.float.stochastic_rounding(exact, weight.dtype, seed=seed)
        wrong += [] if torch.equal(live.view(torch.uint8), rounded.view(torch.uint8)) else [key]
    comfy.model_management.load_models_gpu([patched])
    finite = torch.isfinite(patched.model.diffusion_model(noise, time, context=words)).all().item()
    report = host.quantised.report(patches, "a.safetensors")
    return {"kinds": sorted(kinds), "differing": wrong, "finite": finite, "report": report, "patches": len(patches)}

class Packed(torch.Tensor):
    \"\"\"As the GGUF node pack keeps a weight: bytes that say another shape, dequantised by its own layers.\"\"\"
    shape = property(lambda self: self.logical)
    def detach(self):
        return self

def foreign():
    demo._Config.quant_config = None
    model = load(PLAIN)
    name = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q"
    owner = comfy.utils.get_attr(model.model, name)
    weight = owner.weight.clone()
    packed = torch.zeros(64, 17, dtype=torch.uint8).as_subclass(Packed)
    packed.logical, packed.tensor_type = weight.shape, SimpleNamespace(name="Q4_0")
    owner._parameters["weight"] = packed
    host = bridge.read_model(model, None)
    patched, _, binding = bridge.patched(host, stack)
    patches = {host.key(target): patch for target, patch in binding.patches.items()}
    key = f"{name}.weight"
    # Its layers hand on what is dequantised, with the patches as they were added.
    got = comfy.lora.calculate_weight(list(patched.patches[key]), weight.half(), key)
    wanted = patching.apply_patch(weight.half(), patches[key], dtype=torch.float32)
    return {"same": torch.equal(got, wanted), "report": host.quantised.report(patches, "a.safetensors")}

def smoothed():
    \"\"\"A layer that multiplies its input (nvfp4 made with activations in mind): the LoRA is for both together.\"\"\"
    name = "middle_block.1.transformer_blocks.0.ff.net.2"
    smooth = torch.linspace(0.5, 2.0, 512)
    smooth[7] = 0.0  # an input that the layer does not hear, nor can a LoRA
    tensors = in_format("nvfp4", {}) | {f"{PREFIX}{name}.pre_quant_scale": smooth}
    demo._Config.quant_config = {"mixed_ops": True}
    model = load(tensors)
    patched, _, binding = bridge.patched(bridge.read_model(model, None), stack)
    key = f"diffusion_model.{name}.weight"
    patch = next(patch for target, patch in binding.patches.items() if target.module.path == name)
    dense = comfy.utils.get_attr(model.model, key).float().dequantize()
    live = comfy.lora.calculate_weight(patched.patches[key], dense.clone(), key)
    plain = patching.apply_patch(torch.zeros_like(dense), patch)
    plain[:, 7] = 0.0
    x = torch.randn(5, 512)
    # What the layer does with the patched weight, against the layer as it was and the LoRA beside it.
    beside = (x * smooth) @ dense.T + x @ plain.T
    return float(((x * smooth) @ live.T - beside).abs().max() / beside.abs().max())

with torch.inference_mode():
    said = {name: examine(name, options) for name, options in formats.items()}
    said["plain fp8"], said["foreign"] = plain_fp8(), foreign()
    said["smoothed"] = smoothed()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(comfy_environment: HostEnvironment, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("loras")
    parts = lora_files.factors("loom_demo", seed=0, modules=lora_files.TRANSFORMERS + "|conv")
    lora_files.save(folder / "a.safetensors", lora_files.kohya(parts, 2.0))
    out = comfy_environment.run_code(CODE, str(repository), str(folder), json.dumps(FORMATS))
    return json.loads(out.splitlines()[-1])


each = pytest.mark.parametrize("name", FORMATS)


@each
def test_the_library_reads_what_the_host_quantised(said: Any, name: str) -> None:
    """Every weight in float32, to the last bit: numbers, scales, their order, packing, rotation."""
    assert said[name]["layers"] == (16 if "rot" in name else 80)
    assert said[name]["dequantised differing"] == []


@each
def test_the_host_reads_what_a_merge_wrote(said: Any, name: str) -> None:
    assert said[name]["merged differing"] == []


@each
def test_live_weights_are_the_librarys_rounded_by_the_host(said: Any, name: str) -> None:
    """The exact weight, through the host's own quantising with the seed that it takes for the weight."""
    assert said[name]["fit"][0] == said[name]["fit"][1] > 100
    assert said[name]["live differing"] == []
    assert said[name]["streamed differing"] == []


@each
def test_the_hosts_loading_takes_the_patches(said: Any, name: str) -> None:
    """Loaded whole and streamed, the LoRA moves the output alike; unloaded, the model is what it was."""
    loaded, lowvram, after = said[name]["moved"]
    assert loaded > 0.1
    assert lowvram > 0.1
    assert after == 0
    assert said[name]["lowvram patches"] > 0


@each
def test_the_report_says_what_rounding_will_take(said: Any, name: str) -> None:
    """Estimated from a few rows, before the host rounds: against what it did, on the average of the weights."""
    report, live = said[name]["report"], said[name]["live"]
    assert report["quantised"] == {("int8_tensorwise" if name.startswith("int8") else name): len(live)}
    layers = report["rounding"]["layers"]
    assert set(layers) == set(live)
    for place, kind in enumerate(("weight", "change")):
        measured = sum(errors[place] for errors in live.values()) / len(live)
        estimated = sum(layers[key][kind] for key in live) / len(live)
        # Sixteen rows of each weight, and formats whose error depends on the largest numbers of a block.
        assert estimated == pytest.approx(measured, rel=0.25)


@each
def test_a_merge_rounds_to_nearest_and_so_errs_less(said: Any, name: str) -> None:
    assert said[name]["merge"] < 0.9 * max(errors[0] for errors in said[name]["live"].values())


def test_a_model_that_was_loaded_as_fp8(said: Any) -> None:
    found = said["plain fp8"]
    assert found["kinds"] == ["torch.float8_e4m3fn"]
    assert found["differing"] == []
    assert found["finite"]
    assert found["report"]["quantised"] == {"float8_e4m3fn": found["patches"]}
    assert found["report"]["rounding"]["of_weight"]["mean"] == pytest.approx(0.037, rel=0.01)


def test_a_factor_on_the_input_is_minded(said: Any) -> None:
    """In float32: sums of 512 products, three times."""
    assert said["smoothed"] < 1e-5


def test_weights_that_another_pack_keeps_packed(said: Any) -> None:
    """GGUF: recognised by the shape that they say, patched when they were dequantised, never rounded back."""
    assert said["foreign"]["same"]
    assert said["foreign"]["report"] == {"quantised": {"GGUF Q4_0": 1}, "rounding": {}}
