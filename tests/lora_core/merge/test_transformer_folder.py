"""Pipeline folders of transformers: what diffusers cuts apart, swaps and renames comes back as the original had it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import inventories
from lora_core.architectures import Architecture, Component, Module, flux, joint, streams
from lora_core.architectures.spec import parameter_name
from lora_core.errors import CorruptFileError, UnknownCheckpointError
from lora_core.merge import open_checkpoint
from lora_core.merge.folder import open_folder
from sparse_files import sparse_file

Tensors = dict[str, torch.Tensor]


def narrow(component: Component) -> Component:
    """The same with matrices one column wide: the converter of FLUX.1 counts on the real number of rows."""

    def cut(module: Module) -> Module:
        return replace(
            module, shapes={name: (shape[0], *[1] * (len(shape) - 1)) for name, shape in module.shapes.items()}
        )

    return replace(component, modules={path: cut(module) for path, module in component.modules.items()})


FLUX = narrow(streams.build(replace(flux.TRANSFORMER, double=1, single=2)))
SD3 = joint.build(joint.JointConfig(layers=2, positions=4, qk_norm=True, dual=1, context=8, pooled=4))
MODELS: dict[str, tuple[Component, str]] = {"flux": (FLUX, "flux"), "sd3": (SD3, "sd3")}


def original(component: Component) -> Tensors:
    """Seeded random weights under the model's own names."""
    generator = torch.Generator().manual_seed(0)
    return {
        parameter_name(path, parameter): torch.randn(shape, generator=generator)
        for path, module in component.modules.items()
        for parameter, shape in module.shapes.items()
    }


def write(folder: Path, tensors: Tensors, converter: str) -> Tensors:
    """The transformer of a pipeline folder, made by diffusers' own converter."""
    from diffusers.loaders import single_file_utils

    convert: Callable[..., Any] = getattr(single_file_utils, f"convert_{converter}_transformer_checkpoint_to_diffusers")
    made: Tensors = {key: tensor.contiguous() for key, tensor in convert(dict(tensors)).items()}
    (folder / "transformer").mkdir(parents=True)
    save_file(made, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    return made


def family(component: Component) -> Architecture:
    return Architecture("small", "small", build=lambda: (component,))


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_is_the_checkpoint_that_it_was_made_of(name: str, tmp_path: Path):
    component, converter = MODELS[name]
    tensors = original(component)
    write(tmp_path, tensors, converter)

    checkpoint = open_folder(tmp_path, [family(component)])

    assert {key.removeprefix(component.checkpoint_prefix) for key in checkpoint.tensors} == tensors.keys()
    for key, stored in checkpoint.tensors.items():
        assert torch.equal(stored.load(), tensors[key.removeprefix(component.checkpoint_prefix)]), key
    assert checkpoint.left_out == {}
    # Each parameter can be patched: nothing has a place by halves.
    assert len(checkpoint.places) == len(tensors)
    assert all(target.slice is None and place.slice is None for target, place in checkpoint.places.items())


def test_a_missing_part_of_a_fused_matrix_is_named(tmp_path: Path):
    made = write(tmp_path, original(FLUX), "flux")
    del made["single_transformer_blocks.1.proj_mlp.weight"]
    save_file(made, tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")

    with pytest.raises(
        CorruptFileError, match=r"parts of .*single_blocks\.1\.linear1\.weight are missing: 3 are there"
    ):
        open_folder(tmp_path, [family(FLUX)])


@pytest.mark.parametrize(
    ("name", "prefix", "family"),
    [("flux-dev__comfy-allinone", "model.diffusion_model.", "flux"), ("flux2-klein-4b__native", "", "flux2_klein_4b")],
)
def test_norms_are_found_as_scale_and_as_weight(name: str, prefix: str, family: str, tmp_path: Path, keys: Path):
    """Black Forest Labs' files say ``scale``, those that ComfyUI wrote ``weight``."""
    tensors = inventories.read(keys / "base" / f"{name}.json")["tensors"]
    bare = {key.removeprefix(prefix): shape for key, shape in tensors.items() if key.startswith(prefix)}

    checkpoint = open_checkpoint(sparse_file(tmp_path / "model.safetensors", bare))

    assert checkpoint.architecture.name == family
    assert {place.key for place in checkpoint.places.values()} == bare.keys()


# Transformer of diffusers -> the same model's own file, and what that has in front of its keys.
PAIRS = {
    "chroma__diffusers_transformer": ("chroma__native", ""),
    "flux-dev__diffusers_transformer": ("flux-dev__comfy-allinone", "model.diffusion_model."),
    "flux-schnell__diffusers_transformer": ("flux-schnell__native", ""),
    "flux2-dev__diffusers_transformer": ("flux2-dev__native", ""),
    "hunyuan-video__diffusers_transformer": ("hunyuan-video__native", ""),
    "lumina2__diffusers_transformer": ("lumina2__native", ""),
    "qwen-image__diffusers_transformer": ("qwen-image__native", ""),
    "sd3-medium__diffusers_transformer": ("sd3-medium__comfy-allinone", "model.diffusion_model."),
    "sd35-large__diffusers_transformer": ("sd35-large__comfy", "model.diffusion_model."),
    "sd35-medium__diffusers_transformer": ("sd35-medium__native", ""),
    "wan21-i2v-14b__diffusers_transformer": ("wan21-i2v-14b__native", ""),
    "wan21-t2v-1.3b__diffusers_transformer": ("wan21-t2v-1.3b__native", ""),
    "wan21-t2v-14b__diffusers_transformer": ("wan21-t2v-14b__native", ""),
    "z-image__diffusers_transformer": ("z-image__native", ""),
}
PREFIX = "model.diffusion_model."


def shapes(keys: Path, name: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, shape in inventories.read(keys / "base" / f"{name}.json")["tensors"].items()}


def pipeline(path: Path, parts: dict[str, dict[str, tuple[int, ...]]]) -> Path:
    for name, tensors in parts.items():
        stem = "model" if name.startswith("text_encoder") else "diffusion_pytorch_model"
        sparse_file(path / name / f"{stem}.safetensors", tensors)
    return path


@pytest.mark.parametrize("alone", [False, True], ids=["pipeline", "its transformer"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_real_folder_has_the_names_and_shapes_of_the_models_own_file(
    name: str, alone: bool, tmp_path: Path, keys: Path
):
    single, prefix = PAIRS[name]
    folder = pipeline(tmp_path / "pipe", {"transformer": shapes(keys, name)})
    checkpoint = open_checkpoint(folder / "transformer" if alone else folder)

    own = {
        PREFIX + key.removeprefix(prefix): shape
        for key, shape in shapes(keys, single).items()
        if key.startswith(prefix)
    }
    # The published files of FLUX.1 and 2 say ``scale``, later ones ``weight``.
    said = {key.replace("_norm.scale", "_norm.weight"): stored.shape for key, stored in checkpoint.tensors.items()}
    assert said == {key.replace("_norm.scale", "_norm.weight"): shape for key, shape in own.items()}
    assert checkpoint.left_out == {}
    assert len(checkpoint.places) == len(checkpoint.tensors)


def test_a_pipeline_with_text_encoders_and_vae_is_one_file(tmp_path: Path, keys: Path):
    """FLUX.1, but for T5, of which no inventory has transformers' names; its VAE is ``vae.`` in such files."""
    parts = {
        "transformer": shapes(keys, "flux-dev__diffusers_transformer"),
        "text_encoder": shapes(keys, "sdxl__diffusers_text_encoder"),
        "vae": {
            key: shape
            for key, shape in shapes(keys, "sd15__diffusers_vae").items()
            if not key.startswith(("quant_conv", "post_quant_conv"))
        },
    }
    checkpoint = open_checkpoint(pipeline(tmp_path / "pipe", parts))
    single = shapes(keys, "flux-dev__comfy-allinone")

    assert checkpoint.left_out == {}
    assert checkpoint.components == {"denoiser", "text_encoder"}
    assert {key for key in checkpoint.tensors if not key.startswith(PREFIX)} == {
        key
        for key in single
        if key.startswith(("text_encoders.clip_l.transformer.text_model", "vae.")) and "position_ids" not in key
    }


def test_what_a_single_file_cannot_hold_is_said(tmp_path: Path, keys: Path):
    """Wan 2.2 has two transformers; the VAE of a video model is not taken over; a foreign text encoder neither."""
    parts = {
        "transformer": shapes(keys, "wan21-t2v-14b__diffusers_transformer"),
        "transformer_2": shapes(keys, "wan21-t2v-14b__diffusers_transformer"),
        "text_encoder": shapes(keys, "sdxl__diffusers_text_encoder"),
        "text_encoder_2": shapes(keys, "sdxl__diffusers_text_encoder_2"),
        "vae": {"encoder.conv_in.weight": (96, 3, 3, 3, 3)},
    }
    checkpoint = open_checkpoint(pipeline(tmp_path / "pipe", parts))

    assert checkpoint.architecture.name == "wan_t2v_14b"
    assert len(checkpoint.tensors) == 1095
    assert checkpoint.left_out == {
        "text_encoder": "not the text_encoder of Wan 2.1 / 2.2 T2V 14B: other names or shapes",
        "vae": "a VAE of videos, whose names in single files are not known (encoder.conv_in.weight); "
        "load the VAE beside the merged file",
        "text_encoder_2": "a single-file checkpoint of Wan 2.1 / 2.2 T2V 14B has no place for it",
        "transformer_2": "a single file holds one denoiser; merge this folder by itself",
    }
    second = open_checkpoint(tmp_path / "pipe" / "transformer_2")
    assert second.label == "transformer_2"
    assert second.tensors.keys() == checkpoint.tensors.keys()


def test_a_folder_of_one_text_encoder(tmp_path: Path, keys: Path):
    parts = {"text_encoder_2": shapes(keys, "sdxl__diffusers_text_encoder_2")}
    checkpoint = open_checkpoint(pipeline(tmp_path / "pipe", parts) / "text_encoder_2")
    assert (checkpoint.architecture.name, checkpoint.components) == ("sdxl", {"text_encoder_2"})


def test_a_folder_of_one_component_that_is_not_known(tmp_path: Path):
    folder = pipeline(tmp_path / "pipe", {"transformer": {"blocks.0.weight": (4, 4)}}) / "transformer"
    with pytest.raises(UnknownCheckpointError, match=r"its keys look like 'transformer/blocks\.0\.weight'"):
        open_checkpoint(folder)
