"""Krea 2: diffusers' names are those of its own conversion; a LoRA of every layer names what is here."""

from __future__ import annotations

import json
from pathlib import Path

import converted
from lora_core.architectures import Component, krea2
from lora_core.types import DENOISER, TEXT_ENCODER


def component(name: str = DENOISER) -> Component:
    found = krea2.ARCHITECTURE.component(name)
    assert found is not None
    return found


def test_diffusers_names_are_those_of_its_own_conversion() -> None:
    from diffusers.loaders.single_file_utils import convert_krea2_transformer_checkpoint_to_diffusers
    from diffusers.models.transformers.transformer_krea2 import Krea2Transformer2DModel

    inventory = converted.meta(Krea2Transformer2DModel)
    converted.check(component(), convert_krea2_transformer_checkpoint_to_diffusers, inventory)


def test_a_lora_of_every_linear_layer_has_a_module_for_each(keys: Path) -> None:
    """The file has the first and the last block of 28, and 264 modules in all, so says its inventory."""
    inventory = json.loads((keys / "lora" / "krea2__kohya__lora_don-martin.json").read_text())
    modules = component().modules
    flat = {"lora_unet_" + path.replace(".", "_"): module for path, module in modules.items()}
    for key, shape in inventory["tensors"].items():
        name, _, role = key.partition(".")
        weight = flat[name].shapes["weight"]
        if role == "lora_down.weight":
            assert shape[1] == weight[1]
        elif role == "lora_up.weight":
            assert shape[0] == weight[0]
    assert "264 modules" in inventory["notes"]
    assert sum("weight" in module.shapes for module in modules.values()) == 264


def test_modulations_and_norms_are_modules_of_one_parameter() -> None:
    modules = component().modules
    assert modules["blocks.3.mod"].shapes == {"lin": (6 * 6144,)}
    assert modules["blocks.3.attn.qknorm.knorm"].shapes == {"scale": (128,)}
    assert modules["txtfusion.refiner_blocks.1.prenorm"].block == "refiner01"


def test_the_text_encoder_is_the_language_model_of_qwen3_vl() -> None:
    encoder = component(TEXT_ENCODER)
    assert encoder.host_prefix == "qwen3vl_4b.transformer."
    module = encoder.modules["model.layers.35.mlp.up_proj"]
    assert module.shapes == {"weight": (9728, 2560)}
    assert module.diffusers == "language_model.layers.35.mlp.up_proj"


def test_the_way_out_of_an_attention_has_two_names() -> None:
    names = component().diffusers
    for name in ("transformer_blocks.7.attn.to_out.0", "transformer_blocks.7.attn.to_out"):
        assert names[name].path == "blocks.7.attn.wo"
