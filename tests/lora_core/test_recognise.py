"""The family of a loaded model: variants pass, relatives with the same names do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from lora_core.architectures import ARCHITECTURES, Component, sd15, sdxl, unet
from lora_core.architectures.recognise import recognise
from lora_core.types import DENOISER, TEXT_ENCODER, TEXT_ENCODER_2, ModuleKey, Shape, Target

Shapes = dict[Target, Shape]


def shapes(component: Component) -> Shapes:
    """What a model has that is this component."""
    return {
        Target(ModuleKey(component.name, path), name): shape
        for path, module in component.modules.items()
        for name, shape in module.shapes.items()
    }


def model(family: str) -> Shapes:
    return {key: shape for part in ARCHITECTURES.get(family).components for key, shape in shapes(part).items()}


def family(found: Mapping[Target, Shape], *components: str) -> str | None:
    row = recognise(found.get, components or {target.module.component for target in found})
    return row and row.name


def weight(path: str) -> Target:
    return Target(ModuleKey(DENOISER, path))


@pytest.mark.parametrize("name", ARCHITECTURES.names)
def test_each_family_is_itself_whole_and_in_parts(name: str):
    whole = model(name)

    assert family(whole) == name
    assert family(whole, DENOISER) == name


def test_text_encoders_alone_are_of_the_family_that_has_them_all():
    """The first encoder of SDXL is that of SD 1.5: alone it is taken for that, with the second one it is SDXL's."""
    assert family(model("sdxl"), TEXT_ENCODER, TEXT_ENCODER_2) == "sdxl"
    assert family(model("sd15"), TEXT_ENCODER) == "sd15"
    assert family(model("loom_demo"), TEXT_ENCODER) == "loom_demo"


@pytest.mark.parametrize(("name", "channels"), [("sd15", 9), ("sd15", 8), ("sdxl", 9), ("sdxl", 8)])
def test_variants_with_more_latent_channels_pass(name: str, channels: int):
    found = model(name)
    found[weight("input_blocks.0.0")] = (320, channels, 3, 3)

    assert family(found) == name


def test_sd_21_is_not_sd_15():
    """The same names; another width of the text condition, and linear projections."""
    config = replace(sd15.UNET, context_dim=1024, linear_projection=True)

    assert family(shapes(unet.build(config))) is None


@pytest.mark.parametrize("config", [sd15.UNET, sdxl.UNET], ids=["sd15", "sdxl"])
def test_another_width_of_the_text_condition_alone_is_enough(config: unet.UNetConfig):
    assert family(shapes(unet.build(replace(config, context_dim=1280)))) is None


def test_the_refiner_is_not_sdxl():
    refiner = replace(sdxl.UNET, model_channels=384, channel_mult=(1, 2, 4, 4), depth=(0, 4, 4, 0), context_dim=1280)

    assert family(shapes(unet.build(replace(refiner, middle_depth=4, label_dim=2560)))) is None


def test_pruned_models_are_not_sdxl():
    """As SSD-1B: the blocks that are left have other numbers than in SDXL, so its LoRAs would act in wrong places."""
    assert family(shapes(unet.build(replace(sdxl.UNET, depth=(0, 2, 4), middle_depth=0)))) is None


def test_components_of_different_families_and_of_none():
    mixed = shapes(ARCHITECTURES.get("sd15").components[0]) | {
        key: shape for key, shape in model("loom_demo").items() if key.module.component == TEXT_ENCODER
    }

    assert family(mixed) is None
    assert family(mixed, DENOISER) == "sd15"
    # FLUX: SDXL's first text encoder, and one that no family here has.
    assert family(model("sdxl"), TEXT_ENCODER, "t5xxl") is None
    assert family({}, DENOISER) is None
