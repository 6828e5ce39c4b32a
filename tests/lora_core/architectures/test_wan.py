"""Wan: names and shapes are those of the host and of diffusers; the small models are not the large one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import converted
import inventories
from lora_core.architectures import Architecture, Component, wan
from lora_core.errors import WrongBaseError
from lora_core.io import TensorDict
from lora_core.mapping import map_source
from lora_core.types import DENOISER, TEXT_ENCODER, ModuleKey, Target

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


def factors(out: int, into: int, name: str) -> dict[str, torch.Tensor]:
    return {f"{name}.lora_down.weight": torch.empty(1, into), f"{name}.lora_up.weight": torch.empty(out, 1)}


def extract(blocks: int) -> dict[str, torch.Tensor]:
    """What lightx2v's extracts hold: factors of matrices, differences of norms, biases and modulations."""
    tensors: dict[str, torch.Tensor] = {}
    for path, module in denoiser(wan.I2V_14B).modules.items():
        if path.startswith("blocks.") and int(path.split(".")[1]) >= blocks:
            continue
        name = f"diffusion_model.{path}"
        for parameter, shape in module.shapes.items():
            if parameter == "weight" and len(shape) == 2:
                tensors |= factors(*shape, name)
            else:
                role = {"weight": "diff", "bias": "diff_b", "modulation": "diff_m"}[parameter]
                tensors[f"{name}.{role}"] = torch.empty(shape, device="meta")
    return tensors


def test_an_extract_of_every_parameter_maps_whole() -> None:
    tensors = extract(blocks=2)
    adapter = map_source(TensorDict(tensors, "lightx2v.safetensors"))

    assert adapter.report.complete
    assert adapter.report.architecture == wan.I2V_14B.name
    assert set(adapter.report.used) == tensors.keys()
    targets = {target for target, _ in adapter.deltas}
    assert Target(ModuleKey(DENOISER, "blocks.1"), "modulation") in targets
    assert Target(ModuleKey(DENOISER, "head"), "modulation") in targets
    assert Target(ModuleKey(DENOISER, "blocks.0.cross_attn.norm_k_img")) in targets


def test_on_a_model_without_an_image_encoder_its_part_is_left_over() -> None:
    tensors = {key: tensor for key, tensor in extract(blocks=1).items() if "patch_embedding" not in key}
    report = map_source(TensorDict(tensors, "lightx2v.safetensors"), architecture=wan.I2V_A14B.name).report

    assert report.misfit == ()
    assert {key for key in tensors if "_img" in key or "img_emb" in key} == set(report.unmatched)


def test_a_lora_for_14b_is_not_taken_for_the_small_models() -> None:
    """Its names of blocks 0 to 29 are theirs too."""
    tensors = factors(5120, 5120, "diffusion_model.blocks.3.self_attn.q")
    adapter = map_source(TensorDict(tensors, "14b.safetensors"))

    assert adapter.report.architecture == wan.T2V_14B.name
    with pytest.raises(WrongBaseError, match="made for Wan 2"):
        map_source(TensorDict(tensors, "14b.safetensors"), architecture=wan.T2V_1_3B.name)


@pytest.mark.parametrize("suffix", ["lora_A.weight", "lora_A.default.weight"])
def test_names_with_and_without_a_prefix_mean_the_same(suffix: str) -> None:
    """DiffSynth writes no prefix, and PEFT's name of the adapter."""
    tensors = {
        f"blocks.0.ffn.2.{suffix}": torch.empty(4, 13824),
        f"blocks.0.ffn.2.{suffix.replace('_A', '_B')}": torch.empty(5120, 4),
    }
    ((target, _),) = map_source(TensorDict(tensors, "diffsynth.safetensors")).deltas
    assert target == Target(ModuleKey(DENOISER, "blocks.0.ffn.2"))


def test_a_lora_that_diffusers_converted_goes_to_the_same_places() -> None:
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_wan_lora_to_diffusers as convert

    tensors = {key: tensor for key, tensor in extract(blocks=1).items() if ".lora_" in key}
    native = map_source(TensorDict(tensors, "native.safetensors"))
    theirs = map_source(TensorDict(convert(dict(tensors)), "diffusers.safetensors"))

    assert theirs.report.complete
    assert {target for target, _ in theirs.deltas} == {target for target, _ in native.deltas}
