"""Wan: names and shapes are those of the host and of diffusers; the small models are not the large one."""

from __future__ import annotations

from pathlib import Path

import pytest

import converted
import inventories
from lora_core.architectures import Architecture, Component, wan
from lora_core.types import DENOISER, TEXT_ENCODER, ModuleKey

DIFFUSERS = {
    "wan21-t2v-14b": wan.T2V_14B,
    "wan21-i2v-14b": wan.I2V_14B,
    "wan21-t2v-1.3b": wan.T2V_1_3B,
}


def denoiser(architecture: Architecture) -> Component:
    component = architecture.component(DENOISER)
    assert component is not None
    return component


@pytest.mark.parametrize("name", DIFFUSERS)
def test_diffusers_names_are_those_of_its_own_conversion(name: str, keys: Path) -> None:
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    inventory = inventories.read(keys / "base" / f"{name}__diffusers_transformer.json")["tensors"]
    converted.check(denoiser(DIFFUSERS[name]), convert_wan_transformer_to_diffusers, inventory)


def test_vace_is_that_of_diffusers() -> None:
    """A side branch of eight blocks; the first has one projection more."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
    from diffusers.models.transformers.transformer_wan_vace import WanVACETransformer3DModel

    layers = list(range(0, 40, 5))
    inventory = converted.meta(lambda: WanVACETransformer3DModel(vace_layers=layers, vace_in_channels=96))
    component = denoiser(wan.VACE_14B)
    converted.check(component, convert_wan_transformer_to_diffusers, inventory)
    assert component.modules["vace_blocks.0.before_proj"].block == "vace00"
    assert "vace_blocks.1.before_proj" not in component.modules


def test_image_models_have_what_text_models_have_and_more() -> None:
    text, image = denoiser(wan.T2V_14B).modules, denoiser(wan.I2V_14B).modules
    more = {path.removeprefix("blocks.0.") for path in image.keys() - text.keys()}

    assert text.keys() < image.keys()
    assert {path for path in text if text[path].shapes != image[path].shapes} == {"patch_embedding"}
    assert {"cross_attn.k_img", "cross_attn.v_img", "cross_attn.norm_k_img", "img_emb.proj.3"} <= more
    assert wan.I2V_14B.family == wan.I2V_A14B.family == wan.VACE_14B.family == wan.T2V_14B.name


def test_small_models_have_the_names_of_the_large_one_and_no_shape_of_it() -> None:
    large = denoiser(wan.T2V_14B).modules
    for architecture in (wan.T2V_1_3B, wan.TI2V_5B):
        small = denoiser(architecture).modules
        assert small.keys() < large.keys()
        assert not any(small[path].shapes == large[path].shapes for path in small)
        assert architecture.family == architecture.name


def test_a_modulation_is_a_parameter_of_its_block() -> None:
    block = ModuleKey(DENOISER, "blocks.7")
    module = wan.T2V_14B.module(block)
    assert module is not None
    assert module.shapes == {"modulation": (1, 6, 5120)}
    assert wan.T2V_14B.block(block) == "block07"
    assert wan.T2V_14B.blocks == ("base", *(f"block{index:02d}" for index in range(40)))


def test_the_text_encoder_is_umt5() -> None:
    encoder = wan.TI2V_5B.component(TEXT_ENCODER)
    assert encoder is not None
    assert encoder.host_prefix == "umt5xxl.transformer."
    assert encoder.modules["shared"].shapes == {"weight": (256384, 4096)}
