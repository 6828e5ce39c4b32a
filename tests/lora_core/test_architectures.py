"""Architectures are data; the data is held against inventories of real checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import inventories
from lora_core.architectures import ARCHITECTURES, Architecture
from lora_core.architectures.spec import sliced_shape
from lora_core.errors import UnknownNameError
from lora_core.types import DENOISER, TEXT_ENCODER_2, ModuleKey, Slice, Target

REAL = {"sd15": "sd15__ldm", "sdxl": "sdxl__sgm"}
# Not modules: buffers and constants that checkpoints carry along.
NO_MODULE = ("position_ids", "logit_scale", "edm_vpred.", "v_pred", "ztsnr", "alphas", "betas", "posterior_", "sqrt_")


@pytest.mark.parametrize("name", REAL)
def test_every_parameter_of_a_real_checkpoint_has_its_place_and_shape(name: str, keys: Path) -> None:
    checkpoint = inventories.read(keys / "base" / f"{REAL[name]}.json")["tensors"]
    architecture = ARCHITECTURES.get(name)
    reached: set[str] = set()
    for key, module in architecture.walk():
        for parameter, shape in module.shapes.items():
            place = architecture.place(Target(key, parameter))
            assert place is not None
            stored = tuple(checkpoint[place.key])
            if place.slice is not None:
                stored = sliced_shape(stored, place.slice)
            assert (stored[::-1] if place.transposed else stored) == shape
            reached.add(place.key)
    rest = {key for key in checkpoint if not key.startswith("first_stage_model.")} - reached
    assert {key for key in rest if not any(text in key for text in NO_MODULE)} == set()


@pytest.mark.parametrize("name", REAL)
def test_diffusers_names_are_those_of_the_published_map(name: str, keys: Path) -> None:
    table = json.loads((keys / "maps" / f"{name}__ldm_to_diffusers.json").read_text())["tensors"]
    component = ARCHITECTURES.get(name).component(DENOISER)
    assert component is not None
    for module in component.modules.values():
        for parameter in module.shapes:
            assert table[f"{component.checkpoint_prefix}{module.path}.{parameter}"] == (
                f"unet.{module.diffusers}.{parameter}"
            )


def test_the_demo_model_is_what_its_row_says(repository: Path) -> None:
    """Row and pipeline folder describe one model: names and shapes of the UNet and the text encoder."""
    from safetensors import safe_open

    architecture = ARCHITECTURES.get("loom_demo")
    folders = {"denoiser": "unet/diffusion_pytorch_model", "text_encoder": "text_encoder/model"}
    for component in architecture.components:
        path = repository / "demo" / "model" / f"{folders[component.name]}.safetensors"
        with safe_open(path, "pt") as file:
            stored = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        described = {
            f"{module.diffusers}.{parameter}": shape
            for module in component.modules.values()
            for parameter, shape in module.shapes.items()
        }
        # transformers 5 leaves "text_model." out of the keys of a CLIPTextModel.
        if not any(key.startswith("text_model.") for key in stored) and component.name == "text_encoder":
            stored = {f"text_model.{key}": shape for key, shape in stored.items()}
        assert stored == described


def test_open_clip_keeps_q_k_and_v_in_one_matrix() -> None:
    sdxl = ARCHITECTURES.get("sdxl")
    module = ModuleKey(TEXT_ENCODER_2, "text_model.encoder.layers.3.self_attn.k_proj")
    place = sdxl.place(Target(module))
    assert place is not None
    assert place.key == "conditioner.embedders.1.model.transformer.resblocks.3.attn.in_proj_weight"
    assert place.slice == Slice(0, 1280, 1280)


def test_a_slice_of_a_slice_starts_where_both_starts_add_up() -> None:
    sdxl = ARCHITECTURES.get("sdxl")
    module = ModuleKey(TEXT_ENCODER_2, "text_model.encoder.layers.0.self_attn.v_proj")
    place = sdxl.place(Target(module, "weight", Slice(0, 64, 64)))
    assert place is not None
    assert place.slice == Slice(0, 2 * 1280 + 64, 64)


def blocks(architecture: Architecture, *paths: str) -> list[str]:
    return [architecture.block(ModuleKey(DENOISER, path)) for path in paths]


def test_blocks_have_the_names_of_the_field() -> None:
    sd15, sdxl = ARCHITECTURES.get("sd15"), ARCHITECTURES.get("sdxl")
    assert sd15.blocks == ("base", *(f"in{n:02d}" for n in range(12)), "mid", *(f"out{n:02d}" for n in range(12)))
    assert sdxl.blocks == ("base", *(f"in{n:02d}" for n in range(9)), "mid", *(f"out{n:02d}" for n in range(9)))
    paths = ("input_blocks.4.1.proj_in", "middle_block.1.norm", "output_blocks.2.0.in_layers.2", "time_embed.0")
    assert blocks(sd15, *paths) == ["in04", "mid", "out02", "base"]


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'sdxl'") as caught:
        ARCHITECTURES.get("sdlx")
    assert caught.value.nearest == "sdxl"
