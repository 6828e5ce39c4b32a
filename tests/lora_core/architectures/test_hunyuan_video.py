"""HunyuanVideo: names and rows are those of diffusers' conversion of Tencent's checkpoint."""

from __future__ import annotations

from pathlib import Path

import converted
import inventories
from lora_core.architectures import Component, Location, hunyuan_video
from lora_core.types import DENOISER, TEXT_ENCODER, TEXT_ENCODER_2, Slice


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
    assert component(TEXT_ENCODER).host_prefix == "llama.transformer."
    assert component(TEXT_ENCODER_2).host_prefix == "clip_l.transformer."
