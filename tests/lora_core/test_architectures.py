"""Architectures are data; the data is held against inventories of real checkpoints."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import inventories
from lora_core.architectures import ARCHITECTURES, Architecture, Component, Location
from lora_core.architectures.spec import parameter_name, sliced_shape
from lora_core.errors import UnknownNameError
from lora_core.types import COMPONENTS, DENOISER, TEXT_ENCODER, TEXT_ENCODER_2, ModuleKey, Shape, Slice, Target


class Real(NamedTuple):
    """A checkpoint's inventory, and what of an architecture it holds.

    Args:
        architecture: name in ``ARCHITECTURES``.
        inventory: file in ``keys/base``.
        prefix: what the denoiser's keys begin with where the file holds a denoiser alone, under its canonical names;
            None where keys are those of ``Architecture.place``.
        components: what is in the file; others are not looked for.
        partial: the file holds a part of its model (block 0 of many), so only its own keys are looked at.
        besides: beginnings of keys of what is no component here.
    """

    architecture: str
    inventory: str
    prefix: str | None = None
    components: tuple[str, ...] = COMPONENTS
    partial: bool = False
    besides: tuple[str, ...] = ("first_stage_model.",)


UNET = (DENOISER,)
# Add a family's rows here; several inventories of one family are several rows.
REAL = (
    Real("sd15", "sd15__ldm"),
    Real("sd15_inpaint", "sd15-inpaint__ldm-unet", components=UNET),
    Real("sd15_pix2pix", "sd15-pix2pix__ldm-unet", components=UNET),
    Real("sd21", "sd21__ldm"),
    # Its makers left out the last layer of the text encoder, which has no effect, and the projection.
    Real("sd21", "sd21__ldm-wd", partial=True),
    Real("sd21_inpaint", "sd21-inpaint__ldm-unet", components=UNET),
    Real("sd21_depth", "sd21-depth__ldm", components=UNET, besides=("depth_model.",)),
    Real("sdxl", "sdxl__sgm"),
    Real("sdxl_inpaint", "sdxl-inpaint__sgm-unet", components=UNET),
    Real("sdxl_refiner", "sdxl-refiner__sgm"),
    Real("flux", "flux-dev__comfy-allinone", besides=("vae.",)),
    Real("chroma", "chroma__native", prefix="", components=UNET),
    Real("cascade_c", "cascade-stage-c__native", prefix="", components=UNET),
    Real("cascade_b", "cascade-stage-b__native", prefix="", components=UNET),
    Real("qwen_image", "qwen-image__native", prefix="", components=UNET),
    Real("qwen_image", "qwen2.5-vl__comfy_subset", prefix="", components=(TEXT_ENCODER,), partial=True),
    Real("z_image", "z-image__native", prefix="", components=UNET),
    # The last norm is in the published code and used by no program.
    Real("z_image", "z-image__comfy-legacy_subset", "", UNET, partial=True, besides=("norm_final.",)),
    Real("z_image", "z-image__scaled-fp8_subset", prefix="", components=UNET, partial=True),
    Real("lumina2", "lumina2__native", prefix="", components=UNET),
    Real("wan_t2v_14b", "wan21-t2v-14b__native", prefix="", components=UNET),
    Real("wan21_i2v_14b", "wan21-i2v-14b__native", prefix="", components=UNET),
    Real("wan22_i2v_a14b", "wan22-i2v-a14b__native", prefix="", components=UNET),
    Real("wan21_t2v_1_3b", "wan21-t2v-1.3b__native", prefix="", components=UNET),
    Real("wan22_ti2v_5b", "wan22-ti2v-5b__native", prefix="", components=UNET),
    Real("hunyuan_video", "hunyuan-video__native", prefix="", components=UNET),
    Real("anima", "anima__native", prefix="", components=UNET),
    Real("anima", "anima__comfy_subset", prefix="net.", components=UNET, partial=True),
    Real("anima", "anima__scaled-fp8_subset", prefix="net.", components=UNET, partial=True),
    Real("cosmos_predict2_2b", "cosmos-predict2-2b__native", prefix="", components=UNET),
)
# Not modules: buffers and constants that checkpoints carry along, and the scales of quantised weights.
NO_MODULE = (
    "scale_weight",
    "scale_input",
    "scaled_fp8",
    "weight_scale",
    "input_scale",
    "comfy_quant",
    "position_ids",
    "logit_scale",
    "edm_vpred.",
    "v_pred",
    "ztsnr",
    "alphas",
    "betas",
    "posterior_",
    "sqrt_",
)


class Diffusers(NamedTuple):
    """An inventory of a component in diffusers' (text encoders: transformers') names.

    Args:
        unnamed: endings of what is no parameter of a module here.
    """

    architecture: str
    inventory: str
    component: str = DENOISER
    unnamed: tuple[str, ...] = ("position_ids",)


# Add a family's rows here.
DIFFUSERS = (
    Diffusers("sd15", "sd15__diffusers_unet"),
    Diffusers("sd15", "sd15__diffusers_text_encoder", TEXT_ENCODER),
    Diffusers("sd21", "sd21__diffusers_unet"),
    Diffusers("sd21", "sd21__diffusers_text_encoder", TEXT_ENCODER),
    Diffusers("sdxl", "sdxl__diffusers_unet"),
    Diffusers("sdxl", "sdxl__diffusers_text_encoder", TEXT_ENCODER),
    Diffusers("sdxl", "sdxl__diffusers_text_encoder_2", TEXT_ENCODER_2),
    Diffusers("sdxl_refiner", "sdxl-refiner__diffusers_unet"),
    Diffusers("qwen_image", "qwen-image__diffusers_transformer"),
    Diffusers("z_image", "z-image__diffusers_transformer"),
    Diffusers("lumina2", "lumina2__diffusers_transformer"),
)

# architecture -> map in keys/maps, of the checkpoint's keys to diffusers'
MAPS = {
    "sd15": "sd15__ldm_to_diffusers",
    "sd21": "sd21__ldm_to_diffusers",
    "sdxl": "sdxl__ldm_to_diffusers",
    "sdxl_refiner": "sdxl-refiner__ldm_to_diffusers",
}


def parameters(component: Component) -> Iterator[tuple[str, str, Shape]]:
    for path, module in component.modules.items():
        for parameter, shape in module.shapes.items():
            yield path, parameter, shape


def component_of(architecture: str, name: str = DENOISER) -> Component:
    found = ARCHITECTURES.get(architecture).component(name)
    assert found is not None
    return found


@pytest.mark.parametrize("real", REAL, ids=lambda real: real.inventory)
def test_every_parameter_of_a_real_checkpoint_has_its_place_and_shape(real: Real, keys: Path) -> None:
    checkpoint = inventories.read(keys / "base" / f"{real.inventory}.json")["tensors"]
    architecture = ARCHITECTURES.get(real.architecture)
    reached: set[str] = set()
    for component in architecture.components:
        if component.name not in real.components:
            continue
        for path, parameter, shape in parameters(component):
            if real.prefix is None:
                place = component.place(path, parameter)
            else:
                place = component.place(path, parameter)._replace(
                    key=real.prefix + parameter_name(path, parameter), slice=None, transposed=False
                )
            if real.partial and place.key not in checkpoint:
                continue
            stored = tuple(checkpoint[place.key])
            if place.slice is not None:
                stored = sliced_shape(stored, place.slice)
            assert (stored[::-1] if place.transposed else stored) == shape, place.key
            reached.add(place.key)
    rest = {key for key in checkpoint if not key.startswith(real.besides)} - reached
    assert {key for key in rest if not any(text in key for text in NO_MODULE)} == set()


@pytest.mark.parametrize("real", DIFFUSERS, ids=lambda real: f"{real.architecture}-{real.component}")
def test_every_weight_of_diffusers_has_a_name_here(real: Diffusers, keys: Path) -> None:
    """Each is a module, or rows of some, whose shapes add up to its own; and each module is reached."""
    stored = inventories.read(keys / "base" / f"{real.inventory}.json")["tensors"]
    component = component_of(real.architecture, real.component)
    reached: set[str] = set()
    for key, shape in stored.items():
        if key.endswith(real.unnamed):
            continue
        path, _, parameter = key.rpartition(".")
        if path not in component.diffusers:  # a bare parameter, scale_shift_table
            assert key in component.diffusers, key
            path, parameter = key, ""
        location = component.diffusers[path]
        shapes = [part_shape(component, part, parameter) for part in location.parts]
        rows = sum(part[0] for part in shapes)
        assert (rows, *shapes[0][1:]) == tuple(shape), key
        reached.update(part.path for part in location.parts)
    assert missing(component, reached) == set()


def part_shape(component: Component, part: Location, parameter: str) -> Shape:
    """The shape of a parameter's rows; without a name, of the module's only parameter."""
    shapes = component.modules[part.path].shapes
    shape = shapes[parameter] if parameter in shapes else next(iter(shapes.values()))
    return shape if part.slice is None else sliced_shape(shape, part.slice)


def missing(component: Component, reached: set[str]) -> set[str]:
    """Modules that diffusers does not have; text encoders of diffusers lack unused layers and projections."""
    rest = component.modules.keys() - reached
    if component.name == DENOISER:
        return rest
    last = f"text_model.encoder.layers.{sum(path.endswith('.mlp.fc1') for path in component.modules) - 1}."
    return {path for path in rest if path != "text_projection" and not path.startswith(last)}


@pytest.mark.parametrize("name", MAPS)
def test_diffusers_names_are_those_of_the_published_map(name: str, keys: Path) -> None:
    table = json.loads((keys / "maps" / f"{MAPS[name]}.json").read_text())["tensors"]
    component = component_of(name)
    for module in component.modules.values():
        for parameter in module.shapes:
            assert table[f"{component.checkpoint_prefix}{module.path}.{parameter}"] == (
                f"unet.{module.diffusers}.{parameter}"
            )


@pytest.mark.parametrize("row", ARCHITECTURES, ids=lambda row: row.name)
def test_no_name_means_two_things(row: Architecture) -> None:
    """Neither as a path nor with "_" for ".", as kohya writes it, under any of the component's prefixes."""
    flattened: dict[str, tuple[str, Location]] = {}
    for component in row.components:
        own = {module.diffusers: Location(path) for path, module in component.modules.items() if module.diffusers}
        tables = (own, component.aliases, component.others, component.native)
        for path in component.paths:
            meanings = [table[path] for table in tables if path in table]
            assert all(meaning == meanings[0] for meaning in meanings), path
        for prefix in component.kohya_prefixes:
            for path, location in component.paths.items():
                name = f"{prefix}_{path.replace('.', '_')}"
                assert flattened.setdefault(name, (component.name, location)) == (component.name, location), name


@pytest.mark.parametrize("row", ARCHITECTURES, ids=lambda row: row.name)
def test_every_name_leads_to_rows_that_are_there(row: Architecture) -> None:
    for component in row.components:
        for name, location in component.paths.items():
            for part in location.parts:
                shapes = component.modules[part.path].shapes
                if part.slice is not None:
                    dim, start, length = part.slice
                    sizes = [shape[dim] for shape in shapes.values() if len(shape) > dim]
                    assert 0 <= start < start + length <= max(sizes), name


@pytest.mark.parametrize("row", ARCHITECTURES, ids=lambda row: row.name)
def test_a_row_is_complete(row: Architecture) -> None:
    """Components in the order of types, a variant's family is a row, names of parts do not repeat."""
    names = [component.name for component in row.components]
    assert names == [name for name in COMPONENTS if name in names]
    assert names[0] == DENOISER
    assert ARCHITECTURES.get(row.family).variant_of == ""
    for component in row.components:
        assert component.kohya_prefixes
        assert component.diffusers_prefix
        assert bool(component.encoder) == (component.name != DENOISER)
        assert not any(path.startswith(".") or path.endswith(".") for path in component.paths)
    hosts = Counter(component.host_prefix for component in row.components)
    assert max(hosts.values()) == 1
    titles = Counter(other.title for other in ARCHITECTURES)
    assert titles[row.title] == 1


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


def test_a_name_of_open_clips_fused_matrix_means_q_k_and_v() -> None:
    encoder = component_of("sd21", TEXT_ENCODER)
    fused = encoder.paths["transformer.resblocks.3.attn.in_proj"]
    layer = "text_model.encoder.layers.3"
    assert [part.path for part in fused.parts] == [f"{layer}.self_attn.{name}_proj" for name in "qkv"]
    assert encoder.paths["transformer.resblocks.3.mlp.c_fc"] == Location(f"{layer}.mlp.fc1")


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
