"""A stack merged into a checkpoint: the bits of ``apply_patch``, the rest as it was, and all or nothing."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import small_models
from lora_core import Stack, StackEntry, Strengths, load_adapter
from lora_core.architectures import ARCHITECTURES
from lora_core.errors import (
    ConfigError,
    NonFiniteError,
    OutputExistsError,
    UnknownNameError,
    UnmappedKeysError,
    WrongBaseError,
)
from lora_core.io import TensorFile
from lora_core.merge import Checkpoint, merge_to_checkpoint, open_checkpoint
from lora_core.merge.source import Piece, Stored
from lora_core.patching import apply_patch, bind
from lora_core.types import TEXT_ENCODER_2, Target
from small_models import adapter, lora_tensors, stack_of


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.safetensors"
    small_models.write_checkpoint(path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "merged.safetensors"


def three() -> Stack:
    """A LoRA on everything, one on the text encoder, one on the attention with a negative strength."""
    return Stack(
        (
            StackEntry(adapter(lora_tensors(1), "a.safetensors"), Strengths(0.8, 0.5)),
            StackEntry(adapter(lora_tensors(2, rank=8, only="lora_te"), "b.safetensors"), Strengths(1.0, 0.7)),
            StackEntry(adapter(lora_tensors(3, only="attn"), "c.safetensors"), Strengths(-0.3, 1.0)),
        )
    )


def expected(base: Path, stack: Stack, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """The same in memory."""
    checkpoint = open_checkpoint(base)
    tensors = load_file(base)
    for target, patch in bind(stack, checkpoint.shape_of).patches.items():
        key = checkpoint.places[target].key
        tensors[key] = apply_patch(tensors[key], patch, dtype=dtype)
    return tensors


def same(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return set(got) == set(wanted) and all(
        tensor.dtype == wanted[key].dtype and torch.equal(tensor.float(), wanted[key].float())
        for key, tensor in got.items()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_merged_is_the_patch_in_memory_to_the_bit(tmp_path: Path, out: Path, dtype: torch.dtype) -> None:
    base = tmp_path / "base.safetensors"
    small_models.write_checkpoint(base, dtype)
    report = merge_to_checkpoint(base, three(), out)

    assert same(load_file(out), expected(base, three()))
    assert report.patched == len(lora_tensors()) / 3  # down, up and alpha of each weight
    assert report.tensors == len(load_file(base))
    assert report.bytes == out.stat().st_size
    assert [lora.fitting for lora in report.loras] == [lora.total for lora in report.loras]


def test_a_layer_by_hand(base: Path, out: Path) -> None:
    """W + 0.8 * alpha / rank * up @ down in float64, rounded once."""
    tensors = lora_tensors(1)
    merge_to_checkpoint(base, stack_of(adapter(tensors)), out)
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    key = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    delta = tensors[f"{name}.lora_up.weight"].double() @ tensors[f"{name}.lora_down.weight"].double()
    wanted = (load_file(base)[key].double() + 0.8 * (2.0 / 4) * delta).half()
    got = load_file(out)[key]
    assert torch.allclose(got.float(), wanted.float(), rtol=0, atol=2**-11 * wanted.abs().max().item())
    assert (got != wanted).float().mean() < 0.01  # but for rare ties of the rounding


def test_strength_zero_is_the_base(base: Path, out: Path) -> None:
    report = merge_to_checkpoint(base, stack_of(adapter(lora_tensors()), strengths=Strengths(0.0, 0.0)), out)
    assert report.patched == 0
    assert same(load_file(out), load_file(base))


def test_untouched_tensors_are_the_same_bytes_in_the_same_order(base: Path, out: Path) -> None:
    """Integers, the VAE and the noise schedule too."""
    merge_to_checkpoint(base, stack_of(adapter(lora_tensors(only="attn1_to_q"))), out)
    before, after = TensorFile(base), TensorFile(out)
    assert list(after) == list(before)
    merged, original = load_file(out), load_file(base)
    changed = {key for key in merged if not torch.equal(merged[key], original[key])}
    assert changed == {key for key in merged if key.endswith("attn1.to_q.weight")}


def test_dora_convolutions_and_biases(base: Path, out: Path) -> None:
    """What is no product of factors goes the same way."""
    module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_2"
    tensors = lora_tensors(only="ff_net_2") | {f"{module}.dora_scale": torch.rand(64, 1) + 0.5}
    tensors["lora_unet_conv_in.diff"] = small_models.random((64, 16, 3, 3), 5)
    tensors["lora_unet_conv_in.diff_b"] = small_models.random((64,), 6)
    stack = stack_of(adapter(tensors), adapter(lora_tensors(3)))
    merge_to_checkpoint(base, stack, out)
    assert same(load_file(out), expected(base, stack))


CASTS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.mark.parametrize("dtype", CASTS)
def test_another_dtype_for_the_model_and_nothing_else(base: Path, out: Path, dtype: str) -> None:
    merge_to_checkpoint(base, three(), out, dtype=dtype)
    merged, wanted = load_file(out), expected(base, three(), CASTS[dtype])
    for key, tensor in merged.items():
        if key in ("alphas_cumprod", "model_ema.num_updates") or key.endswith("position_ids"):
            assert tensor.dtype == small_models.OTHER[key].dtype
            assert torch.equal(tensor, small_models.OTHER[key])
        else:
            assert tensor.dtype == CASTS[dtype]
            assert torch.equal(tensor, wanted[key].to(CASTS[dtype]))


def test_fp8_for_the_matrices(base: Path, out: Path) -> None:
    """Patched in float32 and rounded once to fp8; small and delicate tensors stay wider."""
    merge_to_checkpoint(base, three(), out, dtype="fp8")
    merged, wanted = load_file(out), expected(base, three(), torch.float8_e4m3fn)
    query = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    text = "cond_stage_model.transformer.text_model."
    assert merged[query].dtype == torch.float8_e4m3fn
    assert torch.equal(merged[query].float(), wanted[query].float())
    assert merged[text + "encoder.layers.0.mlp.fc1.weight"].dtype == torch.float8_e4m3fn
    assert merged[text + "embeddings.token_embedding.weight"].dtype == torch.float16
    assert merged["model.diffusion_model.out.2.bias"].dtype == torch.float16
    assert merged["first_stage_model.decoder.conv_in.weight"].dtype == torch.float16  # was fp32
    assert merged["alphas_cumprod"].dtype == torch.float32
    with safe_open(out, "pt") as file:  # that library minds alignment
        assert len(file.keys()) == len(merged)


def sdxl_part(path: Path) -> Checkpoint:
    """One layer of SDXL's second text encoder in its checkpoint's own layout: fused rows, transposed projection."""
    prefix = "conditioner.embedders.1.model."
    tensors = {
        f"{prefix}transformer.resblocks.0.attn.in_proj_weight": small_models.random((3840, 1280), 1).half(),
        f"{prefix}transformer.resblocks.0.attn.in_proj_bias": small_models.random((3840,), 2).half(),
        f"{prefix}text_projection": small_models.random((1280, 1280), 3).half(),
    }
    save_file(tensors, path)
    file = TensorFile(path)
    sdxl = ARCHITECTURES.get("sdxl")
    places = {}
    for key, module in sdxl.walk():
        for parameter in module.shapes:
            place = sdxl.place(Target(key, parameter))
            if place is not None and place.key in file:
                places[Target(key, parameter)] = place
    stored = {name: Stored(ref.shape, ref.dtype, (Piece(ref),)) for name, ref in file.items()}
    return Checkpoint(path.name, sdxl, {}, stored, places, {path.name: path})


def test_rows_of_a_fused_matrix_and_a_transposed_one(tmp_path: Path, out: Path) -> None:
    """LoRAs on q and v, and on the text projection; k is not touched."""
    checkpoint = sdxl_part(tmp_path / "part.safetensors")
    assert {target.module.component for target in checkpoint.places} == {TEXT_ENCODER_2}
    layer = "lora_te2_text_model_encoder_layers_0_self_attn_"
    tensors: dict[str, torch.Tensor] = {}
    for seed, name in enumerate((layer + "q_proj", layer + "v_proj", "lora_te2_text_projection")):
        tensors[f"{name}.lora_down.weight"] = small_models.random((4, 1280), 10 + seed)
        tensors[f"{name}.lora_up.weight"] = small_models.random((1280, 4), 20 + seed)
    tensors[layer + "v_proj.diff_b"] = small_models.random((1280,), 30)
    stack = stack_of(adapter(tensors), strengths=Strengths(1.0, 0.5))
    merge_to_checkpoint(checkpoint, stack, out)

    before, after = load_file(tmp_path / "part.safetensors"), load_file(out)
    prefix = "conditioner.embedders.1.model."
    weight, bias = (f"{prefix}transformer.resblocks.0.attn.in_proj_{name}" for name in ("weight", "bias"))

    def delta(name: str) -> torch.Tensor:
        return 0.5 * tensors[f"{name}.lora_up.weight"] @ tensors[f"{name}.lora_down.weight"]

    change = torch.cat([delta(layer + "q_proj"), torch.zeros(1280, 1280), delta(layer + "v_proj")])
    torch.testing.assert_close(after[weight].float(), before[weight].float() + change, rtol=1e-3, atol=1e-4)
    assert torch.equal(after[weight][1280:2560], before[weight][1280:2560])
    assert torch.equal(after[bias][:2560], before[bias][:2560])
    rows = before[bias][2560:].float() + 0.5 * tensors[layer + "v_proj.diff_b"]
    torch.testing.assert_close(after[bias][2560:].float(), rows, rtol=1e-3, atol=1e-4)
    projection = before[prefix + "text_projection"].float() + delta("lora_te2_text_projection").T
    torch.testing.assert_close(after[prefix + "text_projection"].float(), projection, rtol=1e-3, atol=1e-4)

    # To the bit, the transposed one included: the same patch on the matrix as the model has it.
    for target, patch in bind(stack, checkpoint.shape_of).patches.items():
        place = checkpoint.places[target]
        part = before[place.key] if place.slice is None else before[place.key].narrow(*place.slice)
        got = after[place.key] if place.slice is None else after[place.key].narrow(*place.slice)
        wanted = apply_patch(part.T if place.transposed else part, patch)
        assert torch.equal(got.T if place.transposed else got, wanted)


def test_a_pipeline_folder_becomes_a_checkpoint(repository: Path, out: Path) -> None:
    folder = repository / "demo" / "model"
    stack = stack_of(adapter(lora_tensors(1)))
    report = merge_to_checkpoint(folder, stack, out)
    merged = open_checkpoint(out)

    assert merged.architecture.name == report.architecture == "loom_demo"
    assert "loom.pipeline" in merged.metadata
    source = open_checkpoint(folder)
    patches = bind(stack, source.shape_of).patches
    by_key = {source.places[target].key: patch for target, patch in patches.items()}
    for key in source.tensors:
        original = source.load(key)
        wanted = apply_patch(original, by_key[key]) if key in by_key else original
        assert torch.equal(merged.load(key), wanted), key
    # And again: what was written is a source like any other.
    again = out.with_name("again.safetensors")
    merge_to_checkpoint(out, stack, again)
    assert open_checkpoint(again).metadata["loom.pipeline"] == merged.metadata["loom.pipeline"]


def test_a_lora_for_another_model(base: Path, out: Path) -> None:
    foreign = adapter(lora_tensors(architecture=ARCHITECTURES.get("sd15"), only="attn1_to_q"), "sd15.safetensors")
    with pytest.raises(WrongBaseError, match=r"sd15\.safetensors: made for SD 1\.5, the model is Loom Demo: 0 of 16"):
        merge_to_checkpoint(base, stack_of(adapter(lora_tensors()), foreign), out)
    assert list(out.parent.iterdir()) == []


def test_a_lora_of_which_nothing_fits(tmp_path: Path, out: Path) -> None:
    """A text encoder's LoRA on a UNet alone."""
    tensors = small_models.checkpoint_tensors()
    save_file({key: tensor for key, tensor in tensors.items() if key.startswith("model.")}, tmp_path / "u.safetensors")
    text = adapter(lora_tensors(only="lora_te"), "te.safetensors")
    with pytest.raises(
        ConfigError, match=r"te\.safetensors: none of its 12 modules .* u\.safetensors has no text_encoder"
    ):
        merge_to_checkpoint(tmp_path / "u.safetensors", stack_of(text), out)
    both = merge_to_checkpoint(tmp_path / "u.safetensors", stack_of(adapter(lora_tensors())), out, strict=True)
    assert both.loras[0].absent == {"text_encoder": 12}


def test_an_empty_stack(base: Path, out: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to merge: give at least one LoRA"):
        merge_to_checkpoint(base, Stack(), out)


def test_strict_wants_every_tensor(base: Path, out: Path) -> None:
    partial = adapter(lora_tensors() | {"lora_unet_nowhere.lora_down.weight": torch.ones(4, 4)}, "part.safetensors")
    with pytest.raises(UnmappedKeysError, match=r"part\.safetensors: 1 of \d+ tensors are not used"):
        merge_to_checkpoint(base, stack_of(partial), out, strict=True)
    assert not out.exists()
    merge_to_checkpoint(base, stack_of(partial), out)


def test_strict_minds_a_variant_of_the_model(tmp_path: Path, out: Path) -> None:
    """An inpainting-like entry of another width cannot take the LoRA's first layer; the rest can."""
    tensors = small_models.checkpoint_tensors()
    tensors["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(64, 33, 3, 3)
    save_file(tensors, tmp_path / "wide.safetensors")
    stack = stack_of(adapter(lora_tensors(), "a.safetensors"))
    report = merge_to_checkpoint(tmp_path / "wide.safetensors", stack, out)
    assert [misfit.key for misfit in report.loras[0].misfits] == ["denoiser.input_blocks.0.0.weight"]
    assert json.loads(json.dumps(report.as_json()))["loras"][0]["misfit"][0]["expected"] == [64, 33, 3, 3]
    with pytest.raises(UnmappedKeysError, match=r"denoiser\.input_blocks\.0\.0\.weight"):
        merge_to_checkpoint(tmp_path / "wide.safetensors", stack, out, strict=True, overwrite=True)


def test_nan_is_refused_before_anything_is_written(base: Path, out: Path) -> None:
    tensors = lora_tensors()
    tensors["lora_unet_conv_in.lora_up.weight"][3] = float("nan")
    with pytest.raises(NonFiniteError, match=r"bad\.safetensors: lora_unet_conv_in\.lora_up\.weight: 4 of 256"):
        merge_to_checkpoint(base, stack_of(adapter(tensors, "bad.safetensors")), out)
    assert list(out.parent.iterdir()) == []


def test_an_unknown_dtype_names_the_nearest(base: Path, out: Path) -> None:
    with pytest.raises(UnknownNameError, match="no dtype named 'float16': did you mean 'fp16'"):
        merge_to_checkpoint(base, three(), out, dtype="float16")


class Interrupted(BaseException):
    """As the host's cancel: no Exception."""


@pytest.mark.parametrize("part", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("way", ["progress", "cancel"])
def test_a_cancel_leaves_nothing(base: Path, out: Path, part: float, way: str) -> None:
    out.write_bytes(b"old")
    done_part = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal done_part
        done_part = done / total
        if way == "progress" and done_part >= part:
            raise Interrupted

    def cancel() -> None:
        if way == "cancel" and done_part >= part:
            raise Interrupted

    with pytest.raises(Interrupted):
        merge_to_checkpoint(base, three(), out, overwrite=True, progress=progress, cancel=cancel)
    assert [path.name for path in out.parent.iterdir()] == ["merged.safetensors"]
    assert out.read_bytes() == b"old"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("loom-ahead", "loom-hash"))]


def test_an_existing_file_needs_overwrite(base: Path, out: Path) -> None:
    original = base.read_bytes()
    with pytest.raises(OutputExistsError, match=r"base\.safetensors: is there already"):
        merge_to_checkpoint(base, three(), base)
    assert base.read_bytes() == original
    wanted = expected(base, three())
    merge_to_checkpoint(base, three(), base, overwrite=True)  # onto itself: its open map is of the old file
    assert same(load_file(base), wanted)
    assert sorted(os.listdir(base.parent)) == ["base.safetensors", "out"]


def test_from_files_as_the_command_does_it(base: Path, out: Path, tmp_path: Path) -> None:
    save_file(lora_tensors(1), tmp_path / "a.safetensors")
    stack = Stack((StackEntry(load_adapter(tmp_path / "a.safetensors", prefer="loom_demo"), Strengths(0.8, 0.5)),))
    merge_to_checkpoint(base, stack, out)
    assert same(load_file(out), expected(base, stack_of(adapter(lora_tensors(1)))))


@pytest.mark.gpu
def test_on_the_gpu_within_one_rounding(base: Path, out: Path) -> None:
    merge_to_checkpoint(base, three(), out, device="cuda")
    for key, tensor in expected(base, three()).items():
        torch.testing.assert_close(load_file(out)[key], tensor, rtol=2e-3, atol=1e-5)


def test_what_of_a_lora_changes_no_weight_is_named(base: Path, out: Path) -> None:
    more = {"lora_unet_nowhere.lora_down.weight": torch.ones(4, 8), "bundle_emb.ink man.clip_l": torch.ones(2, 64)}
    lora = adapter(lora_tensors(only="attn") | more, "ink.safetensors")

    left = merge_to_checkpoint(base, stack_of(lora), out).as_json()["left_out"]

    assert isinstance(left, dict)
    assert list(left) == [f"ink.safetensors: {key}" for key in more]
    embedding = "the embedding 'ink man', for which a checkpoint has no place: load the LoRA for it"
    assert left["ink.safetensors: bundle_emb.ink man.clip_l"] == embedding
