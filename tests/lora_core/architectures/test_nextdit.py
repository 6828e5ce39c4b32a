"""Z-Image and Lumina 2 share a builder: names, shapes and the order of rows are those of ComfyUI and diffusers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import inventories
from lora_core import map_source
from lora_core.architectures import Architecture, Component, Location, lumina, z_image
from lora_core.architectures.spec import parameter_name, sliced_shape
from lora_core.io import TensorDict
from lora_core.types import Shape, Slice

FAMILIES = {
    "z-image": (z_image.ARCHITECTURE, "convert_z_image_transformer_checkpoint_to_diffusers"),
    "lumina2": (lumina.ARCHITECTURE, "convert_lumina2_to_diffusers"),
}
families = pytest.mark.parametrize("name", FAMILIES)


def denoiser(architecture: Architecture) -> Component:
    return architecture.components[0]


def shapes(component: Component) -> dict[str, Shape]:
    """Canonical name of a parameter -> shape."""
    return {
        parameter_name(path, parameter): shape
        for path, module in component.modules.items()
        for parameter, shape in module.shapes.items()
    }


def labels(component: Component) -> dict[str, torch.Tensor]:
    """A skinny model in which every row of every parameter is a number of its own."""
    found: dict[str, torch.Tensor] = {}
    for count, (name, shape) in enumerate(shapes(component).items()):
        found[name] = torch.arange(shape[0], dtype=torch.int64).reshape(-1, *[1] * (len(shape) - 1)) + 100_000 * count
    return found


def rows(model: dict[str, torch.Tensor], location: Location, parameter: str) -> torch.Tensor:
    parts: list[torch.Tensor] = []
    for part in location.parts:
        tensor = model[parameter_name(part.path, parameter)]
        parts.append(tensor if part.slice is None else tensor.narrow(*part.slice))
    return torch.cat(parts)


@families
def test_every_parameter_of_the_model_and_no_other(name: str, keys: Path):
    checkpoint = inventories.read(keys / "base" / f"{name}__native.json")["tensors"]

    assert shapes(denoiser(FAMILIES[name][0])) == {key: tuple(shape) for key, shape in checkpoint.items()}


@families
def test_every_parameter_of_diffusers_has_a_name_here(name: str, keys: Path):
    checkpoint = inventories.read(keys / "base" / f"{name}__diffusers_transformer.json")["tensors"]
    component = denoiser(FAMILIES[name][0])
    named: dict[str, Shape] = {}
    for path, location in (component.diffusers | {"": Location("")}).items():
        module = component.modules.get(location.path)
        for parameter, shape in module.shapes.items() if module else ():
            here = sliced_shape(shape, location.slice) if location.slice else shape
            named[parameter_name(path, parameter)] = here

    wrong = {key: shape for key, shape in checkpoint.items() if named.get(key) != tuple(shape)}
    # Beside them, the fused name that diffusers gives its attention on request, and the model's own.
    assert wrong == {}
    assert {key.rpartition(".")[0].rpartition(".")[2] for key in named.keys() - checkpoint.keys()} == {
        "to_qkv",
        "qkv",
        "out",
    }


@families
def test_rows_are_in_the_order_that_diffusers_conversion_says(name: str):
    architecture, converter = FAMILIES[name]
    from diffusers.loaders import single_file_utils

    convert: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = getattr(single_file_utils, converter)
    component = denoiser(architecture)
    model = labels(component)
    converted = convert(dict(model))

    for key, tensor in converted.items():
        path, _, parameter = key.rpartition(".")
        assert torch.equal(rows(model, component.paths[path], parameter), tensor), key


def test_lumina_has_fewer_heads_for_keys_and_values_than_for_queries():
    paths = denoiser(lumina.ARCHITECTURE).paths

    assert paths["layers.25.attn.to_q"].slice == Slice(0, 0, 2304)
    assert paths["layers.25.attn.to_k"].slice == Slice(0, 2304, 768)
    assert paths["layers.25.attn.to_v"].slice == Slice(0, 3072, 768)


def test_legacy_z_image_files_of_comfyui_are_of_the_same_model(keys: Path):
    subset = inventories.read(keys / "base" / "z-image__comfy-legacy_subset.json")["tensors"]
    model = shapes(denoiser(z_image.ARCHITECTURE))

    # The last norm is in the published code and used by no program.
    assert {key for key, shape in subset.items() if model.get(key) != tuple(shape)} == {"norm_final.weight"}


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


def test_the_models_own_parameters_have_names():
    """Tokens that fill up sequences are in no layer; a difference of one has the bare name in a file."""
    component = denoiser(z_image.ARCHITECTURE)

    assert component.place("", "x_pad_token").key == "model.diffusion_model.x_pad_token"
    assert component.modules[""].shapes == {"x_pad_token": (1, 3840), "cap_pad_token": (1, 3840)}
