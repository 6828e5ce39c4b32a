"""FLUX.1, FLUX.2 and Chroma: names, shapes and the order of rows, against inventories and diffusers' own converters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import converted
import inventories
from lora_core.architectures import Architecture, Component, chroma, flux, flux2, streams
from lora_core.architectures.recognise import recognise
from lora_core.architectures.spec import parameter_name
from lora_core.types import DENOISER, TEXT_ENCODER, Shape

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
DIFFUSERS: list[tuple[streams.StreamsConfig, str]] = [
    (flux.TRANSFORMER, "flux-dev"),
    (replace(flux.TRANSFORMER, guidance=False), "flux-schnell"),
    (flux2.DEV, "flux2-dev"),
    (chroma.TRANSFORMER, "chroma"),
]
# What quantised files have beside a weight, and in all of the file.
QUANTISED = re.compile(r"\.(weight_scale|input_scale|scale_weight|scale_input|comfy_quant)$|^scaled_fp8$")


def ids(value: object) -> str:
    """Of families and inventories; other values have none in a test's name."""
    return value if isinstance(value, str) else getattr(value, "name", "")


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


@pytest.mark.parametrize(("config", "name"), DIFFUSERS, ids=ids)
def test_diffusers_names_are_those_of_its_converter_row_by_row(config: streams.StreamsConfig, name: str, keys: Path):
    """Two blocks of each kind, and all that is outside blocks."""
    from diffusers.loaders import single_file_utils

    family = name.partition("-")[0]
    convert = getattr(single_file_utils, f"convert_{family}_transformer_checkpoint_to_diffusers")
    found = stored(keys, f"{name}__diffusers_transformer")
    first = {
        key: shape for key, shape in found.items() if not re.match(r"(single_)?transformer_blocks\.(?![01]\.)", key)
    }

    converted.check(streams.build(replace(config, double=2, single=2)), convert, first)


@pytest.mark.parametrize(("config", "name"), DIFFUSERS, ids=ids)
def test_all_blocks_have_diffusers_names(config: streams.StreamsConfig, name: str, keys: Path):
    """Names of modules; parameters and shapes of each kind of block are compared above."""
    paths = {key.rpartition(".")[0] for key in stored(keys, f"{name}__diffusers_transformer")}

    assert streams.build(config).diffusers.keys() == paths


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


def test_flux_2_is_recognised_with_the_shortened_text_encoder(keys: Path):
    """ComfyUI takes Mistral with its first 30 layers and without the last norm: no later one is read."""
    found = {f"diffusion_model.{key}": shape for key, shape in stored(keys, "flux2-dev__native").items()}
    encoder = flux2.ARCHITECTURE.component(TEXT_ENCODER)
    assert encoder is not None
    for key, shape in parameters(encoder).items():
        if not re.match(r"model\.(layers\.3\d\.|norm\.)", key):
            found[encoder.host_prefix + key] = shape

    assert recognise(found, {"diffusion_model", "mistral3_24b"}) is flux2.ARCHITECTURE
