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
from lora_core.errors import CorruptFileError
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
