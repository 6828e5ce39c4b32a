"""Cosmos-Predict2 and Anima: diffusers' names are those of its own conversion; Anima is Cosmos and an adapter."""

from __future__ import annotations

from dataclasses import replace

import pytest

import converted
from lora_core.architectures import Architecture, Component, Location, cosmos
from lora_core.types import DENOISER, TEXT_ENCODER

ADAPTER = "llm_adapter."


def component(architecture: Architecture, name: str = DENOISER) -> Component:
    found = architecture.component(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("architecture", "heads", "layers", "channels"),
    [
        (cosmos.ANIMA, 16, 28, 16),
        (cosmos.PREDICT2_2B, 16, 28, 16),
        (cosmos.PREDICT2_2B_VIDEO, 16, 28, 17),
        (cosmos.PREDICT2_14B, 40, 36, 16),
        (cosmos.PREDICT2_14B_VIDEO, 40, 36, 17),
    ],
    ids=lambda value: value.name if isinstance(value, Architecture) else "",
)
def test_diffusers_names_are_those_of_its_own_conversion(
    architecture: Architecture, heads: int, layers: int, channels: int
) -> None:
    from diffusers.loaders.single_file_utils import convert_cosmos_transformer_checkpoint_to_diffusers
    from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel

    inventory = converted.meta(
        lambda: CosmosTransformer3DModel(
            in_channels=channels,
            num_attention_heads=heads,
            num_layers=layers,
            extra_pos_embed_type=None,
        )
    )
    denoiser = component(architecture)
    own = {path: module for path, module in denoiser.modules.items() if not path.startswith(ADAPTER)}
    converted.check(
        replace(denoiser, modules=own, others={}), convert_cosmos_transformer_checkpoint_to_diffusers, inventory
    )


def test_the_adapter_is_a_model_of_its_own_in_diffusers() -> None:
    from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner

    inventory = converted.meta(AnimaTextConditioner)
    denoiser = component(cosmos.ANIMA)
    described = {
        f"{path}.{parameter}".removeprefix(ADAPTER): shape
        for path, module in denoiser.modules.items()
        for parameter, shape in module.shapes.items()
        if path.startswith(ADAPTER)
    }
    assert described == inventory
    path = "blocks.5.cross_attn.k_proj"
    assert denoiser.paths[f"text_conditioner.{path}"] == Location(ADAPTER + path)
    assert f"transformer.text_conditioner.{path}" not in denoiser.paths


def test_anima_is_cosmos_with_an_adapter_and_another_text_encoder() -> None:
    anima, plain = component(cosmos.ANIMA).modules, component(cosmos.PREDICT2_2B).modules
    assert {path for path in anima if not path.startswith(ADAPTER)} == plain.keys()
    assert all(anima[path] == plain[path] for path in plain)
    assert component(cosmos.ANIMA, TEXT_ENCODER).host_prefix == "qwen3_06b.transformer."
    assert component(cosmos.PREDICT2_2B, TEXT_ENCODER).modules["shared"].shapes == {"weight": (32128, 1024)}


def test_files_name_the_text_encoder_as_kohya_does() -> None:
    encoder = component(cosmos.ANIMA, TEXT_ENCODER)
    assert encoder.kohya_prefixes[0] == "lora_te"
    assert encoder.paths["layers.0.mlp.gate_proj"] == Location("model.layers.0.mlp.gate_proj")
