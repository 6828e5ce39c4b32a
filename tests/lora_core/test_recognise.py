"""The family of a loaded model: variants are told apart, relatives with the same names are not mistaken."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from lora_core.architectures import ARCHITECTURES, Architecture, Component, sd15, sdxl, unet
from lora_core.architectures import recognise as recognising
from lora_core.architectures.recognise import nearest, part_of, parts_of, recognise
from lora_core.architectures.spec import parameter_name
from lora_core.registry import Registry
from lora_core.types import DENOISER, Shape

Shapes = dict[str, Shape]
MODEL = "diffusion_model"
CONV_IN = "diffusion_model.input_blocks.0.0.weight"


def shapes(component: Component) -> Shapes:
    """What ComfyUI's state dict has of this component."""
    return {
        component.host_prefix + parameter_name(path, name): shape
        for path, module in component.modules.items()
        for name, shape in module.shapes.items()
    }


def model(family: str, parts: Collection[str] = ()) -> Shapes:
    """A family's model, or those parts of it."""
    components = ARCHITECTURES.get(family).components
    chosen = [component for component in components if not parts or part_of(component) in parts]
    return {key: shape for component in chosen for key, shape in shapes(component).items()}


def family(found: Shapes, parts: Collection[str] = ()) -> str | None:
    row = recognise(found, parts or {key.partition(".")[0] for key in found})
    return row and row.name


def same_shapes(one: str, other: str) -> bool:
    """Whether the denoisers are alike to the last shape: Wan 2.1 and 2.2 for text to video, for example."""
    return model(one, {MODEL}) == model(other, {MODEL})


@pytest.mark.parametrize("name", ARCHITECTURES.names)
def test_each_family_is_itself_whole_and_in_parts(name: str):
    twins = [row.name for row in ARCHITECTURES if same_shapes(row.name, name)]

    assert family(model(name)) in twins
    assert family(model(name, {MODEL})) == twins[0]


def test_text_encoders_alone_are_of_the_family_that_has_them_all():
    """The first encoder of SDXL is that of SD 1.5: alone it is taken for that, with the second one it is SDXL's."""
    assert family(model("sdxl", {"clip_l", "clip_g"})) == "sdxl"
    assert family(model("sd15", {"clip_l"})) == "sd15"
    assert family(model("sd21", {"clip_h"})) == "sd21"
    assert family(model("sdxl_refiner", {MODEL, "clip_g"})) == "sdxl_refiner"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"clip_g"}, "sdxl_refiner"),
        ({"clip_l", "t5xxl"}, "flux"),
        ({"clip_g", "t5xxl"}, "sd3"),
        ({"clip_l", "clip_g", "t5xxl"}, "sd3"),
        ({"t5xxl"}, "chroma"),
    ],
)
def test_text_encoders_alone_are_of_the_family_that_has_no_others(parts: set[str], expected: str):
    assert family(model("sd3", parts)) == expected


def test_families_that_share_a_text_encoder_each_take_it():
    """CLIP-G alone is the refiner's; whether it is Cascade's or SDXL's, the LoRA tells."""
    found = model("sdxl", {"clip_g"})
    for name in ("sdxl", "sdxl_refiner", "cascade_c"):
        assert parts_of(ARCHITECTURES.get(name), found, {"clip_g"}) == {"clip_g"}
    assert parts_of(ARCHITECTURES.get("sd15"), found, {"clip_g"}) == set()


@pytest.mark.parametrize(
    ("name", "encoders", "of_family"),
    [
        ("chroma", {"clip_l", "t5xxl"}, {"t5xxl"}),  # as FLUX.1's CLIP is loaded
        ("sd3", {"clip_l", "t5xxl"}, {"clip_l", "t5xxl"}),
        ("sd3", {"t5xxl"}, {"t5xxl"}),
        ("sd15", {"clip_l", "clip_g"}, {"clip_l"}),
    ],
)
def test_other_text_encoders_do_not_make_a_model_unknown(name: str, encoders: set[str], of_family: set[str]):
    found = model(name, {MODEL}) | model("sd3", encoders)
    parts = {MODEL, *encoders}

    assert family(found, parts) == name
    assert parts_of(ARCHITECTURES.get(name), found, parts) == {MODEL, *of_family}


def test_the_nearest_family_of_a_model_that_is_none():
    row, there, of = nearest(shapes(unet.build(replace(sdxl.UNET, context_dim=1280))), {MODEL})
    assert row.name == "sdxl"
    assert 0.5 * of < there < of


def test_an_encoder_of_the_same_name_and_another_width_is_another_one():
    assert family(model("loom_demo", {"clip_l"})) == "loom_demo"


@pytest.mark.parametrize(
    ("base", "channels", "variant"),
    [
        ("sd15", 9, "sd15_inpaint"),
        ("sd15", 8, "sd15_pix2pix"),
        ("sdxl", 9, "sdxl_inpaint"),
        ("sdxl", 8, "sdxl_pix2pix"),
        ("sd21", 9, "sd21_inpaint"),
        ("sd21", 5, "sd21_depth"),
    ],
)
def test_variants_differ_in_the_latent_channels_alone(base: str, channels: int, variant: str):
    found = model(base)
    width = found[CONV_IN][0]
    found[CONV_IN] = (width, channels, 3, 3)

    assert family(found) == variant
    assert ARCHITECTURES.get(variant).family == base


def test_a_variant_that_no_row_describes_is_of_its_family():
    """SD 1.5 with thirteen channels; SD 2.1 unCLIP, which has a condition more."""
    odd = model("sd15") | {CONV_IN: (320, 13, 3, 3)}
    unclip = model("sd21") | {"diffusion_model.label_emb.0.0.weight": (1280, 2048)}

    assert family(odd) == "sd15"
    assert family(unclip) == "sd21"


@pytest.mark.parametrize("config", [sd15.UNET, sdxl.UNET], ids=["sd15", "sdxl"])
def test_another_width_of_the_text_condition_alone_is_enough(config: unet.UNetConfig):
    assert family(shapes(unet.build(replace(config, context_dim=1280)))) is None


@pytest.mark.parametrize(("depth", "middle"), [((0, 2, 5), None), ((0, 2, 6), 6)], ids=["KOALA 700M", "KOALA 1B"])
def test_pruned_models_are_not_sdxl(depth: tuple[int, ...], middle: int | None):
    """They have SDXL's names; the blocks left have other numbers, so SDXL's LoRAs would act in wrong places."""
    pruned = shapes(unet.build(replace(sdxl.UNET, depth=depth, middle_depth=middle, res_blocks=1)))

    assert family(pruned) is None


def test_parts_of_different_families_and_of_none():
    mixed = model("sd15", {MODEL}) | model("loom_demo", {"clip_l"})

    assert family(mixed) == "sd15", "the denoiser decides"
    assert parts_of(sd15.ARCHITECTURE, mixed, {MODEL, "clip_l"}) == {MODEL}
    assert family(model("loom_demo", {MODEL}) | model("sd15", {"clip_l"})) == "loom_demo"
    # An encoder that no family has is no hindrance; alone it is of no family.
    assert family(model("sdxl", {"clip_l"}), {"clip_l", "clip_x"}) == "sd15"
    assert family(model("sdxl", {"clip_l"}), {"clip_x"}) is None
    assert family({}, {MODEL}) is None
    assert recognise(model("sd15"), ()) is None


def test_what_the_host_has_besides_does_not_matter():
    """Buffers of the sampling, and encoders of which nothing is connected."""
    found = model("sd15", {MODEL}) | {"model_sampling.sigmas": (1000,), "diffusion_model.extra.weight": (1,)}

    assert family(found, {MODEL}) == "sd15"


def test_the_denoiser_is_named_alike_in_all_families():
    assert {
        part_of(component) for row in ARCHITECTURES for component in row.components if component.name == DENOISER
    } == {MODEL}


def test_families_after_the_right_one_are_not_even_built(monkeypatch: pytest.MonkeyPatch):
    """Building all of them would cost a host's first prompt a third of a second."""
    built: list[str] = []

    def build() -> tuple[Component, ...]:
        built.append("late")
        return ()

    rows = (sd15.ARCHITECTURE, Architecture("late", "Late", build))
    monkeypatch.setattr(recognising, "ARCHITECTURES", Registry("architecture", rows))

    assert family(model("sd15")) == "sd15"
    assert family(model("sd15"), {"clip_l"}) == "sd15"
    assert built == []
    # A parameter that SD 1.5 does not have: a later family may have it.
    assert family(model("sd15", {MODEL}) | {f"{MODEL}.extra.weight": (1,)}) == "sd15"
    assert built == ["late"]
