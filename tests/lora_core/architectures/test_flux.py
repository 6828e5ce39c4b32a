"""FLUX.1, FLUX.2 and Chroma: names, shapes and the order of rows, against inventories and diffusers' own converters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import inventories
from lora_core.architectures import Architecture, Component, Location, chroma, flux, flux2, streams
from lora_core.architectures.recognise import recognise
from lora_core.architectures.spec import parameter_name
from lora_core.types import DENOISER, Shape

CHECKPOINTS: list[tuple[Architecture, str, str]] = [
    (flux.ARCHITECTURE, "flux-dev__comfy-allinone", "model.diffusion_model."),
    (flux.SCHNELL, "flux-schnell__native", ""),
    (flux2.ARCHITECTURE, "flux2-dev__native", ""),
    (flux2.FLUX2_KLEIN_4B, "flux2-klein-4b__native", ""),
    (flux2.FLUX2_KLEIN_9B, "flux2-klein-9b__native", ""),
    (chroma.ARCHITECTURE, "chroma__native", ""),
]
SUBSETS: list[tuple[Architecture, str]] = [
    (flux.ARCHITECTURE, "flux-dev__scaled-fp8_subset"),
    (flux2.ARCHITECTURE, "flux2-dev__fp8mixed_subset"),
    (flux2.FLUX2_KLEIN_4B, "flux2-klein-4b__scaled-fp8_subset"),
    (flux2.FLUX2_KLEIN_9B, "flux2-klein-9b__bfl_subset"),
]
DIFFUSERS: list[tuple[Architecture, str]] = [
    (flux.ARCHITECTURE, "flux-dev"),
    (flux.SCHNELL, "flux-schnell"),
    (flux2.ARCHITECTURE, "flux2-dev"),
    (chroma.ARCHITECTURE, "chroma"),
]
# What quantised files have beside a weight, and in all of the file.
QUANTISED = re.compile(r"\.(weight_scale|input_scale|scale_weight|scale_input|comfy_quant)$|^scaled_fp8$")


def ids(value: object) -> str:
    return str(getattr(value, "name", value))


def denoiser(architecture: Architecture) -> Component:
    component = architecture.component(DENOISER)
    assert component is not None
    return component


def parameters(component: Component) -> dict[str, Shape]:
    """Name in files -> shape; norms say ``scale`` there, which ComfyUI's own files call ``weight``."""
    return {
        parameter_name(path, parameter): shape
        for path, module in component.modules.items()
        for parameter, shape in module.shapes.items()
    }


def stored(keys: Path, name: str, prefix: str = "") -> dict[str, Shape]:
    tensors = inventories.read(keys / "base" / f"{name}.json")["tensors"]
    return {key.removeprefix(prefix): tuple(shape) for key, shape in tensors.items() if key.startswith(prefix)}


def renamed(component: Component, found: Mapping[str, Shape]) -> dict[str, Shape]:
    """The file's names with ``Module.also`` undone."""
    names = {
        parameter_name(path, other): parameter_name(path, parameter)
        for path, module in component.modules.items()
        for parameter, others in module.also.items()
        for other in others
    }
    return {names.get(key, key): shape for key, shape in found.items()}


@pytest.mark.parametrize(("architecture", "name", "prefix"), CHECKPOINTS, ids=ids)
def test_modules_are_those_of_the_checkpoint(architecture: Architecture, name: str, prefix: str, keys: Path):
    component = denoiser(architecture)

    assert parameters(component) == renamed(component, stored(keys, name, prefix))


@pytest.mark.parametrize(("architecture", "name"), SUBSETS, ids=ids)
def test_real_quantised_files_have_these_names(architecture: Architecture, name: str, keys: Path):
    described = parameters(denoiser(architecture))

    found = {key: shape for key, shape in stored(keys, name).items() if not QUANTISED.search(key)}

    assert len(found) > 20
    assert found == {key: described.get(key) for key in found}


Rows = tuple[str, int, int]  # our key, first row, number of rows


def places(component: Component, location: Location, parameter: str) -> tuple[Shape, list[Rows]]:
    """Shape of a parameter under another name, and where its rows lie."""
    found: list[Rows] = []
    shape: Shape = ()
    for part in location.parts:
        module = component.modules[part.path]
        own = next(own for own in module.shapes if parameter in (own, *module.also.get(own, ())))
        shape = module.shapes[own]
        start, length = (0, shape[0]) if part.slice is None else part.slice[1:]
        found.append((parameter_name(part.path, own), start, length))
    return (sum(length for _, _, length in found), *shape[1:]), found


def by_diffusers(component: Component, key: str) -> tuple[Shape, list[Rows]]:
    path, _, parameter = key.rpartition(".")
    return places(component, component.diffusers[path], parameter)


@pytest.mark.parametrize(("architecture", "name"), DIFFUSERS, ids=ids)
def test_every_weight_of_diffusers_has_a_place_of_its_shape(architecture: Architecture, name: str, keys: Path):
    component = denoiser(architecture)
    found = stored(keys, f"{name}__diffusers_transformer")

    placed = {key: by_diffusers(component, key) for key in found}

    assert {key: shape for key, (shape, _) in placed.items()} == found
    # All rows of all our parameters, each once.
    reached: dict[str, list[Rows]] = {}
    for _, parts in placed.values():
        for part in parts:
            reached.setdefault(part[0], []).append(part)
    for key, shape in parameters(component).items():
        ends = [0]
        for _, start, length in sorted(reached[key]):
            assert start == ends[-1]
            ends.append(start + length)
        assert ends[-1] == shape[0]


@pytest.mark.parametrize(
    ("config", "converter"),
    [(flux.TRANSFORMER, "flux"), (flux2.DEV, "flux2"), (chroma.TRANSFORMER, "chroma")],
    ids=["flux", "flux2", "chroma"],
)
def test_rows_are_in_the_order_of_diffusers_own_converter(config: streams.StreamsConfig, converter: str):
    """Each row is a number; the converter cuts, swaps and renames what is one column wide as it does real weights."""
    from diffusers.loaders import single_file_utils

    component = streams.build(replace(config, double=2, single=2))
    numbers: dict[str, torch.Tensor] = {}
    firsts: dict[str, int] = {}
    total = 0
    for key, shape in parameters(component).items():
        firsts[key] = total
        numbers[key] = torch.arange(total, total + shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        total += shape[0]

    convert = getattr(single_file_utils, f"convert_{converter}_transformer_checkpoint_to_diffusers")
    converted = convert(numbers)

    assert sum(len(tensor) for tensor in converted.values()) == total
    for key, tensor in converted.items():
        _, parts = by_diffusers(component, key)
        ours = [torch.arange(firsts[own] + start, firsts[own] + start + length) for own, start, length in parts]
        assert torch.equal(tensor.flatten(), torch.cat(ours)), key


def test_a_control_model_differs_in_its_first_layer_alone():
    ours, control = parameters(denoiser(flux.ARCHITECTURE)), parameters(denoiser(flux.CONTROL))

    assert {key: shape for key, shape in control.items() if ours[key] != shape} == {"img_in.weight": (3072, 128)}
    assert parameters(denoiser(flux.FILL))["img_in.weight"] == (3072, 384)
    assert flux.CONTROL.family == flux.FILL.family == flux.SCHNELL.family == "flux"


def test_schnell_lacks_the_guidance():
    missing = set(denoiser(flux.ARCHITECTURE).modules) - set(denoiser(flux.SCHNELL).modules)

    assert missing == {"guidance_in.in_layer", "guidance_in.out_layer"}


def test_onetrainer_numbers_the_parts_of_a_fused_matrix():
    paths = denoiser(flux.ARCHITECTURE).paths

    assert paths["double_blocks.3.txt_attn.qkv.1"] == paths["transformer_blocks.3.attn.add_k_proj"]
    assert paths["single_blocks.7.linear1.3"] == paths["single_transformer_blocks.7.proj_mlp"]
    assert paths["img_in.proj"].path == "img_in"


def test_blocks():
    assert flux.ARCHITECTURE.blocks == (
        "base",
        *(f"double{index:02d}" for index in range(19)),
        *(f"single{index:02d}" for index in range(38)),
    )
    assert len(flux2.ARCHITECTURE.blocks) == 1 + 8 + 48


def test_a_loaded_model_is_recognised_though_the_host_calls_a_norms_scale_weight(keys: Path):
    """ComfyUI renames ``.scale`` as it loads a file, since norms are of PyTorch's own class there."""
    found = {f"diffusion_model.{key}": shape for key, shape in stored(keys, "flux2-klein-9b__native").items()}

    assert "diffusion_model.single_blocks.0.norm.key_norm.weight" in found
    assert recognise(found, {"diffusion_model"}) is flux2.FLUX2_KLEIN_9B
