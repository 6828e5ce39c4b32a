"""HunyuanVideo: names and rows are those of diffusers' conversion of Tencent's checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import converted
import inventories
from lora_core.architectures import Component, Location, hunyuan_video
from lora_core.io import TensorDict
from lora_core.mapping import Adapter, map_source
from lora_core.types import DENOISER, TEXT_ENCODER, TEXT_ENCODER_2, ModuleKey, Slice, Target


def component(name: str = DENOISER) -> Component:
    found = hunyuan_video.ARCHITECTURE.component(name)
    assert found is not None
    return found


def original(key: str) -> str:
    path, _, parameter = key.rpartition(".")
    return f"{hunyuan_video.original(path)}.{parameter}"


def test_tencents_names_and_diffusers_rows_are_those_of_its_conversion(keys: Path) -> None:
    from diffusers.loaders.single_file_utils import convert_hunyuan_video_transformer_to_diffusers

    inventory = inventories.read(keys / "base" / "hunyuan-video__diffusers_transformer.json")["tensors"]
    converted.check(component(), convert_hunyuan_video_transformer_to_diffusers, inventory, original=original)


def test_each_path_has_the_name_of_tencents_code() -> None:
    names = component().paths
    for theirs, ours in {
        "double_blocks.7.txt_attn_qkv": "double_blocks.7.txt_attn.qkv",
        "double_blocks.7.img_mlp.fc2": "double_blocks.7.img_mlp.2",
        "single_blocks.39.modulation.linear": "single_blocks.39.modulation.lin",
        "single_blocks.39.k_norm": "single_blocks.39.norm.key_norm",
        "txt_in.individual_token_refiner.blocks.1.self_attn_qkv": (
            "txt_in.individual_token_refiner.blocks.1.self_attn.qkv"
        ),
        "txt_in.t_embedder.mlp.0": "txt_in.t_embedder.in_layer",
        "guidance_in.mlp.2": "guidance_in.out_layer",
    }.items():
        assert names[theirs] == Location(ours)


def test_the_refiner_has_rows_for_q_k_and_v() -> None:
    theirs, ours = "context_embedder.token_refiner.refiner_blocks.1.attn", "txt_in.individual_token_refiner.blocks.1"
    assert component().diffusers[f"{theirs}.to_v"] == Location(f"{ours}.self_attn.qkv", Slice(0, 2 * 3072, 3072))


def test_an_older_host_calls_the_weight_of_a_norm_scale() -> None:
    module = component().modules["double_blocks.0.img_attn.norm.query_norm"]
    assert module.shapes == {"weight": (128,)}
    assert module.also == {"weight": ("scale",)}


def test_image_models_have_another_first_layer_alone() -> None:
    plain = component().modules
    for architecture, channels in ((hunyuan_video.I2V, 33), (hunyuan_video.SKYREELS, 32)):
        other = architecture.component(DENOISER)
        assert other is not None
        assert {path for path in plain if plain[path] != other.modules[path]} == {"img_in.proj"}
        assert other.modules["img_in.proj"].shapes["weight"] == (3072, channels, 1, 2, 2)
        assert architecture.family == hunyuan_video.ARCHITECTURE.name


def test_text_encoders_are_llama_and_clip() -> None:
    assert "lora_te1" in component(TEXT_ENCODER_2).kohya_prefixes
    assert component(TEXT_ENCODER).host_prefix == "llama.transformer."
    assert component(TEXT_ENCODER_2).host_prefix == "clip_l.transformer."


def columns(adapter: Adapter, module: str) -> torch.Tensor:
    """The first columns of what an adapter adds to a weight, its parts put together by their rows."""
    out, _ = component().modules[module].shapes["weight"]
    added = torch.zeros(out, 4)
    for target, delta in adapter.deltas:
        if target.module.path == module:
            up, down, scale = delta.factors() or pytest.fail("not low-rank")
            start, length = (target.slice.start, target.slice.length) if target.slice else (0, out)
            added[start : start + length] += scale * up @ down[:, :4]
    return added


def test_a_lora_that_diffusers_converted_adds_the_same() -> None:
    """Tencent's names and fused matrices become diffusers' names and parts.

    Tolerance 1e-6: both are the same products of float32 numbers below 1, summed in the same order or nearly.
    """
    from diffusers.loaders.lora_conversion_utils import _convert_hunyuan_video_lora_to_diffusers as convert

    fused = (
        "double_blocks.1.img_attn.qkv",
        "double_blocks.1.txt_attn.qkv",
        "double_blocks.1.img_mlp.0",
        "single_blocks.2.linear1",
        "single_blocks.2.modulation.lin",
        "txt_in.individual_token_refiner.blocks.0.mlp.2",
    )
    seed = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for path in fused:
        out, into = component().modules[path].shapes["weight"]
        tensors[f"{hunyuan_video.original(path)}.lora_A.weight"] = torch.rand(2, into, generator=seed)
        tensors[f"{hunyuan_video.original(path)}.lora_B.weight"] = torch.rand(out, 2, generator=seed)
    native = map_source(TensorDict({f"transformer.{key}": tensor for key, tensor in tensors.items()}, "native"))
    theirs = map_source(TensorDict(convert(dict(tensors)), "diffusers"))

    assert native.report.complete
    assert theirs.report.complete
    for path in fused:
        assert torch.allclose(columns(native, path), columns(theirs, path), atol=1e-6)
        assert columns(native, path).abs().min() > 0


def test_framepacks_loras_have_diffusers_names_flattened() -> None:
    tensors = {
        "lora_unet_single_transformer_blocks_7_proj_mlp.lora_down.weight": torch.empty(4, 3072),
        "lora_unet_single_transformer_blocks_7_proj_mlp.lora_up.weight": torch.empty(12288, 4),
        "lora_unet_transformer_blocks_19_attn_add_k_proj.lora_down.weight": torch.empty(4, 3072),
        "lora_unet_transformer_blocks_19_attn_add_k_proj.lora_up.weight": torch.empty(3072, 4),
    }
    adapter = map_source(
        TensorDict(tensors, "framepack", {"ss_base_model_version": "framepack"}), prefer="hunyuan_video"
    )

    assert adapter.report.architecture == "hunyuan_video"
    assert {target for target, _ in adapter.deltas} == {
        Target(ModuleKey(DENOISER, "single_blocks.7.linear1"), "weight", Slice(0, 9216, 12288)),
        Target(ModuleKey(DENOISER, "double_blocks.19.txt_attn.qkv"), "weight", Slice(0, 3072, 3072)),
    }
