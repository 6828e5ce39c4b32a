"""Merging into checkpoints whose weights are quantised: the patch meets the weight, not its stored numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import small_models
from lora_core import Stack
from lora_core.architectures import ARCHITECTURES
from lora_core.errors import ConfigError
from lora_core.merge import merge_to_checkpoint, open_checkpoint
from lora_core.patching import apply_patch, bind, rounded
from lora_core.quantised import METADATA_KEY, SCHEMES, dequantised, requantised
from lora_core.quantised.swizzle import padded
from lora_core.types import DENOISER, Target
from quantised_weights import NAMES, quantised, replace_weight, said
from small_models import adapter, lora_tensors, stack_of
from sparse_files import sparse_file

ALL = pytest.mark.parametrize("name", SCHEMES.names)
PREFIX = "model.diffusion_model."
# fc2 of a feed-forward network: 256 columns, so that a rotation in groups of 256 fits.
LAYER = f"{PREFIX}middle_block.1.transformer_blocks.0.ff.net.2"
LORA = "mid_block_attentions_0_transformer_blocks_0_ff_net_2"
# scale_weight and what goes with it, of the first fp8 files.
OLD_NAMES = {**NAMES, "scale": "scale_weight"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "merged.safetensors"


def stack(strength: float = 1.0) -> Stack:
    return stack_of(adapter(lora_tensors(only=LORA)), strengths=small_models.Strengths(strength, 0.0))


def base(path: Path, name: str, *, old: bool = False, metadata: bool = False, **more: torch.Tensor) -> Path:
    """A checkpoint with one layer in this scheme: said by a tensor, by metadata, or in the old way."""
    tensors = small_models.checkpoint_tensors()
    weight = tensors[f"{LAYER}.weight"].float()
    replace_weight(tensors, f"{LAYER}.weight", quantised(name, weight), OLD_NAMES if old else NAMES)
    words: dict[str, str] = {"kept": "yes"}
    if old:
        tensors |= {f"{PREFIX}scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
        tensors |= {f"{LAYER}.scale_input": torch.tensor(0.5)}
    elif metadata:
        options = json.loads(bytes(said(name).tolist()))
        words[METADATA_KEY] = json.dumps({"format_version": "1.0", "layers": {LAYER: options}})
    else:
        tensors |= {f"{LAYER}.comfy_quant": said(name), f"{LAYER}.input_scale": torch.tensor(0.5)}
    save_file(tensors | {f"{LAYER}.{key}": tensor for key, tensor in more.items()}, path, words)
    return path


def exact(path: Path, patches: Stack) -> torch.Tensor:
    """The layer's patched weight in float32, worked out in memory."""
    (patch,) = bind(patches, open_checkpoint(path).shape_of).patches.values()
    return apply_patch(unpatched(path), patch)


def unpatched(path: Path) -> torch.Tensor:
    """The layer's weight in float32."""
    checkpoint = open_checkpoint(path)
    layer = checkpoint.quantised.layers[f"{LAYER}.weight"]
    assert layer.scheme is not None
    return dequantised(layer, layer.scheme, {role: checkpoint.load(key) for role, key in layer.keys.items()})


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@ALL
@pytest.mark.parametrize("metadata", [False, True], ids=["tensor", "metadata"])
def test_a_patched_layer_stays_in_its_scheme(tmp_path: Path, out: Path, name: str, metadata: bool) -> None:
    path = base(tmp_path / "base.safetensors", name, metadata=metadata)
    report = merge_to_checkpoint(path, stack(), out)
    before, after, checkpoint = load_file(path), load_file(out), open_checkpoint(path)
    layer = checkpoint.quantised.layers[f"{LAYER}.weight"]
    assert layer.scheme is not None

    parts = {role: before[key] for role, key in layer.keys.items()}
    new = requantised(layer, layer.scheme, exact(path, stack()), parts)
    wanted = {layer.keys[role]: part for role, part in new.items()}
    assert set(after) == set(before)
    for key, tensor in after.items():
        assert tensor.dtype == before[key].dtype
        assert torch.equal(bits(tensor), bits(wanted.get(key, before[key]))), key
    assert not torch.equal(bits(after[f"{LAYER}.weight"]), bits(before[f"{LAYER}.weight"]))
    assert report.quantised == {name: 1}
    assert list(report.rounding) == [f"{LAYER}.weight"]
    with safe_open(out, "pt") as file:
        assert (METADATA_KEY in file.metadata()) is metadata


@ALL
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16", "fp8"])
def test_another_dtype_takes_the_quantisation_off(tmp_path: Path, out: Path, name: str, dtype: str) -> None:
    """The weight, patched in float32, is rounded once; nothing is left that says it is quantised."""
    path = base(tmp_path / "base.safetensors", name, metadata=True)
    merge_to_checkpoint(path, stack(), out, dtype=dtype)
    merged, checkpoint = load_file(out), open_checkpoint(out)

    number = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}[dtype]
    weight = merged[f"{LAYER}.weight"]
    assert weight.dtype == number
    assert torch.equal(weight.float(), rounded(exact(path, stack()), number).float())
    assert set(merged) == set(small_models.checkpoint_tensors())
    assert not checkpoint.quantised.layers
    assert METADATA_KEY not in checkpoint.metadata
    assert checkpoint.metadata["kept"] == "yes"


def test_a_layer_that_nothing_patches_is_copied_or_unpacked(tmp_path: Path, out: Path) -> None:
    """A LoRA on another layer."""
    path = base(tmp_path / "base.safetensors", "nvfp4")
    other = stack_of(adapter(lora_tensors(only="mid_block_attentions_0_proj_in")))
    merge_to_checkpoint(path, other, out)
    before, after = load_file(path), load_file(out)
    assert all(torch.equal(bits(after[key]), bits(before[key])) for key in before if key.startswith(LAYER))

    merge_to_checkpoint(path, other, out, dtype="fp32", overwrite=True)
    assert torch.equal(load_file(out)[f"{LAYER}.weight"], unpatched(path))


def test_the_first_fp8_files_with_their_marker(tmp_path: Path, out: Path) -> None:
    """``scaled_fp8``, ``scale_weight`` and ``scale_input`` stay as they are, and go when the scale goes."""
    path = base(tmp_path / "base.safetensors", "float8_e4m3fn", old=True)
    merge_to_checkpoint(path, stack(), out)
    assert set(load_file(out)) == set(load_file(path))
    merge_to_checkpoint(path, stack(), out, dtype="bf16", overwrite=True)
    assert set(load_file(out)) == set(small_models.checkpoint_tensors())


@pytest.mark.parametrize("suffix", ["scale_weight", "weight_scale"])
def test_a_scaled_fp8_weight_is_patched_at_its_scale(tmp_path: Path, out: Path, suffix: str) -> None:
    """W = fp8 * scale. The stored numbers alone, without the scale, would take a LoRA forty times too weak."""
    tensors = small_models.checkpoint_tensors()
    key, scale = f"{LAYER}.weight", torch.tensor(0.025)
    tensors[key] = (tensors[key].float() / scale).to(torch.float8_e4m3fn)
    tensors[f"{LAYER}.{suffix}"] = scale
    save_file(tensors, tmp_path / "scaled.safetensors")
    merge_to_checkpoint(tmp_path / "scaled.safetensors", stack(), out)

    merged = load_file(out)
    (patch,) = bind(stack(), open_checkpoint(out).shape_of).patches.values()
    wanted = apply_patch(tensors[key].float() * scale, patch)
    assert torch.equal(merged[key].float(), (wanted / scale).to(torch.float8_e4m3fn).float())
    assert torch.equal(merged[f"{LAYER}.{suffix}"], scale)


def test_a_scale_that_grows_is_written_with_the_weight(tmp_path: Path, out: Path) -> None:
    """Its place in the file is ahead of the weight, and it is known after it. All tensors stay aligned."""
    path = base(tmp_path / "base.safetensors", "float8_e4m3fn")
    merge_to_checkpoint(path, stack(40.0), out)
    before, after = load_file(path), load_file(out)

    growth = float(after[f"{LAYER}.weight_scale"] / before[f"{LAYER}.weight_scale"])
    assert growth in (2.0**power for power in range(1, 12))
    weight = after[f"{LAYER}.weight"].float() * after[f"{LAYER}.weight_scale"]
    wanted = exact(path, stack(40.0))
    assert float((weight - wanted).norm() / wanted.norm()) < 0.03  # half a step of e4m3
    with safe_open(out, "pt") as file:  # that library minds alignment
        assert torch.equal(file.get_tensor(f"{LAYER}.weight_scale"), after[f"{LAYER}.weight_scale"])


def test_padding_is_told_from_the_weight(tmp_path: Path) -> None:
    """Anima's first layer is 2048 x 68; in nvfp4 it lies as 2048 x 80 numbers, two a byte. The family knows."""
    anima = ARCHITECTURES.get("anima")
    shapes: dict[str, tuple[int, ...]] = {}
    for key, module in anima.walk():
        for parameter, shape in module.shapes.items():
            place = anima.place(Target(key, parameter))
            if place is not None and place.slice is None and key.component == DENOISER:
                shapes[place.key] = shape
    first = next(key for key in shapes if key.endswith("x_embedder.proj.1.weight"))
    assert shapes[first] == (2048, 68)
    layer = first.removesuffix(".weight")
    stored = shapes | {first: (2048, 40), f"{layer}.weight_scale": (2048, 8), f"{layer}.weight_scale_2": ()}
    kinds = {first: "U8", f"{layer}.weight_scale": "F8_E4M3", f"{layer}.weight_scale_2": "F32"}
    checkpoint = open_checkpoint(sparse_file(tmp_path / "anima.safetensors", stored, kinds))

    assert checkpoint.architecture is anima
    assert checkpoint.quantised.layers[first].shape == (2048, 68)
    assert checkpoint.load(first).shape == (2048, 40)


@pytest.mark.parametrize(
    ("family", "name"), [("flux", "nvfp4"), ("z_image", "mxfp8"), ("qwen_image", "convrot_w4a4"), ("flux2", "nvfp4")]
)
def test_real_families_are_recognised_by_what_their_packed_weights_hold(tmp_path: Path, family: str, name: str) -> None:
    """Every matrix of the denoiser whose rows are whole blocks is packed; a LoRA is bound to it as to a plain one."""
    architecture, scheme = ARCHITECTURES.get(family), SCHEMES.get(name)
    shapes: dict[str, tuple[int, ...]] = {}
    for key, module in architecture.walk():
        for parameter, shape in module.shapes.items():
            place = architecture.place(Target(key, parameter))
            if place is not None and place.slice is None and key.component == DENOISER:
                shapes[place.key] = shape
    stored, kinds = dict(shapes), dict.fromkeys(shapes, "BF16")
    matrices = {key: shape for key, shape in shapes.items() if key.endswith(".weight") and len(shape) == 2}
    packed = [key for key, shape in matrices.items() if shape[1] % 256 == 0]
    layers: dict[str, object] = {}
    for key in packed:
        (kinds[key],) = scheme.dtypes
        stored[key] = scheme.stored(shapes[key])
        layer = key.removesuffix(".weight")
        layers[layer] = {"format": name}
        stored[f"{layer}.weight_scale"], kinds[f"{layer}.weight_scale"] = scales(name, shapes[key])
        if name == "nvfp4":
            stored[f"{layer}.weight_scale_2"], kinds[f"{layer}.weight_scale_2"] = (), "F32"
    said = json.dumps({"layers": layers})
    checkpoint = open_checkpoint(sparse_file(tmp_path / "base.safetensors", stored, kinds, {METADATA_KEY: said}))

    assert checkpoint.architecture is architecture
    assert len(packed) > 100
    assert set(checkpoint.quantised.layers) == set(packed)
    for target, place in checkpoint.places.items():
        assert checkpoint.shape_of(target) == shapes[place.key]


def scales(name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of the scales of a matrix of this shape."""
    if name == "convrot_w4a4":
        return shape[:1], "F32"
    group = {"nvfp4": 16, "mxfp8": 32}[name]
    return padded(shape[0], shape[1] // group), {"nvfp4": "F8_E4M3", "mxfp8": "F8_E8M0"}[name]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tensors: tensors.pop(f"{LAYER}.weight_scale"), "U8|lacks scale"),
        (lambda tensors: tensors.update({f"{LAYER}.comfy_quant": said("svdquant_w4a4")}), "svdquant_w4a4"),
        (lambda tensors: tensors.update({f"{LAYER}.weight_scale": torch.zeros(3)}), r"scales of shape"),
    ],
)
def test_what_cannot_be_requantised_is_named(
    tmp_path: Path, out: Path, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    path = base(tmp_path / "base.safetensors", "nvfp4")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)

    with pytest.raises(ConfigError, match=f"{LAYER}.weight is quantised in a way that cannot be patched: .*({why})"):
        merge_to_checkpoint(path, stack(), out)
    with pytest.raises(ConfigError, match=r"Merge into the checkpoint in fp32, fp16, bf16 or fp8 that"):
        merge_to_checkpoint(path, stack(), out, dtype="fp16")
    # A LoRA on other layers can be merged, in the dtypes that are there.
    merge_to_checkpoint(path, stack_of(adapter(lora_tensors(only="mid_block_attentions_0_proj_in"))), out)
    assert torch.equal(load_file(out)[f"{LAYER}.weight"], tensors[f"{LAYER}.weight"])


def test_bitsandbytes_is_named(tmp_path: Path, out: Path) -> None:
    tensors = small_models.checkpoint_tensors()
    count = tensors[f"{LAYER}.weight"].numel()
    tensors[f"{LAYER}.weight"] = torch.zeros(count // 2, 1, dtype=torch.uint8)
    tensors[f"{LAYER}.weight.absmax"] = torch.zeros(count // 64)
    save_file(tensors, tmp_path / "nf4.safetensors")
    with pytest.raises(ConfigError, match="cannot be patched: bitsandbytes 4 bit"):
        merge_to_checkpoint(tmp_path / "nf4.safetensors", stack(), out)
