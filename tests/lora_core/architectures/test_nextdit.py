"""Z-Image and Lumina 2 share a builder: names, shapes and the order of rows are those of ComfyUI and diffusers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import converted
import inventories
from lora_core import map_source
from lora_core.architectures import Architecture, Component, lumina, z_image
from lora_core.io import TensorDict
from lora_core.types import DENOISER, ModuleKey, Slice, Target

FAMILIES = {
    "z-image": (z_image.ARCHITECTURE, "convert_z_image_transformer_checkpoint_to_diffusers"),
    "lumina2": (lumina.ARCHITECTURE, "convert_lumina2_to_diffusers"),
}


def denoiser(architecture: Architecture) -> Component:
    return architecture.components[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_in_the_order_that_diffusers_conversion_says(name: str, keys: Path):
    from diffusers.loaders import single_file_utils

    architecture, converter = FAMILIES[name]
    inventory = inventories.read(keys / "base" / f"{name}__diffusers_transformer.json")["tensors"]

    converted.check(denoiser(architecture), getattr(single_file_utils, converter), inventory)


def test_lumina_has_fewer_heads_for_keys_and_values_than_for_queries():
    paths = denoiser(lumina.ARCHITECTURE).paths

    assert paths["layers.25.attn.to_q"].slice == Slice(0, 0, 2304)
    assert paths["layers.25.attn.to_k"].slice == Slice(0, 2304, 768)
    assert paths["layers.25.attn.to_v"].slice == Slice(0, 3072, 768)


def test_blocks_are_refiners_and_layers():
    blocks = z_image.ARCHITECTURE.blocks

    assert blocks == ("base", "noise00", "noise01", "context00", "context01", *(f"layer{n:02d}" for n in range(30)))


# Names of one layer in files of musubi, ai-toolkit, SimpleTuner and diffusers' own scripts, and what they mean.
SPELLINGS = {
    "lora_unet_layers_12_attention_to_q": Slice(0, 0, 3840),
    "lycoris_layers_12_attention_to_k": Slice(0, 3840, 3840),
    "diffusion_model.layers.12.attention.to_v": Slice(0, 7680, 3840),
    "transformer.layers.12.attention.to_v": Slice(0, 7680, 3840),
    "layers.12.attention.to_k": Slice(0, 3840, 3840),
    "lora_unet_layers_12_attention_qkv": None,
    "diffusion_model.layers.12.attention.qkv": None,
}


def pair(name: str, out: int, width: int = 3840, *, rank: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{name}.lora_down.weight": torch.randn(rank, width, generator=generator),
        f"{name}.lora_up.weight": torch.randn(out, rank, generator=generator),
        f"{name}.alpha": torch.tensor(float(rank)),
    }


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_an_attention_means_its_rows(name: str):
    part = SPELLINGS[name]
    file = pair(name, part.length if part else 3 * 3840)

    report = map_source(TensorDict(file, "spelling")).report

    assert report.complete
    assert report.architecture == "z_image"
    (module,) = report.modules
    assert (module.target.module.path, module.target.slice) == ("layers.12.attention.qkv", part)


def test_output_of_the_attention_has_two_names():
    for name in ("lora_unet_layers_13_attention_to_out_0", "diffusion_model.layers.13.attention.out"):
        (module,) = map_source(TensorDict(pair(name, 3840), "output")).report.modules
        assert module.target.module.path == "layers.13.attention.out"
        assert module.target.slice is None


@pytest.mark.parametrize("stem", ["lora_unet_layers_27_attention_", "layers.27.attention."])
def test_a_file_with_fused_and_split_names_of_one_layer_is_mapped_whole(stem: str):
    """diffusers#13203: ``qkv`` beside ``to_q``, ``to_k`` and ``to_v``, ``out`` beside ``to_out.0``."""
    dot = stem[-1]
    outs = {"qkv": 3 * 3840, "to_q": 3840, "to_k": 3840, "to_v": 3840, "out": 3840, f"to_out{dot}0": 3840}
    file = {key: tensor for name, out in outs.items() for key, tensor in pair(stem + name, out).items()}

    report = map_source(TensorDict(file, "both")).report

    assert report.complete
    assert report.architecture == "z_image"
    assert {module.target.module.path for module in report.modules} == {
        "layers.27.attention.qkv",
        "layers.27.attention.out",
    }


def test_a_token_that_fills_up_sequences_is_a_parameter_of_no_layer():
    key = "diffusion_model.x_pad_token.diff"

    adapter = map_source(
        TensorDict(pair("diffusion_model.layers.0.attention.out", 3840) | {key: torch.ones(1, 3840)}, "x")
    )

    assert adapter.report.complete
    target = Target(ModuleKey(DENOISER, "x_pad_token"), "")
    assert target in dict(adapter.deltas)
    place = z_image.ARCHITECTURE.place(target)
    assert place is not None
    assert place.key == "model.diffusion_model.x_pad_token"
