"""SD 3 and 3.5: names, shapes and the order of rows, against real checkpoints and diffusers' own converter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import converted
import inventories
from host_harness.environment import HostEnvironment
from lora_core.architectures import ARCHITECTURES, Architecture, Component, sd3
from lora_core.architectures.spec import parameter_name
from lora_core.types import DENOISER, TEXT_ENCODERS, Shape, Slice

FAMILIES = {"sd3-medium": sd3.ARCHITECTURE, "sd35-medium": sd3.MEDIUM, "sd35-large": sd3.LARGE}
CHECKPOINTS = {
    "sd3-medium": ("sd3-medium__comfy-allinone", "model.diffusion_model."),
    "sd35-medium": ("sd35-medium__native", ""),
    "sd35-large": ("sd35-large__comfy", "model.diffusion_model."),
}
families = pytest.mark.parametrize("name", FAMILIES)


def component(architecture: Architecture, name: str = DENOISER) -> Component:
    found = architecture.component(name)
    assert found is not None
    return found


def parameters(described: Component) -> dict[str, Shape]:
    return {
        parameter_name(path, parameter): shape
        for path, module in described.modules.items()
        for parameter, shape in module.shapes.items()
    }


def stored(keys: Path, name: str, prefix: str) -> dict[str, Shape]:
    tensors = inventories.read(keys / "base" / f"{name}.json")["tensors"]
    return {key.removeprefix(prefix): tuple(shape) for key, shape in tensors.items() if key.startswith(prefix)}


@families
def test_modules_are_those_of_the_checkpoint(name: str, keys: Path):
    assert parameters(component(FAMILIES[name])) == stored(keys, *CHECKPOINTS[name])


def test_text_encoders_are_those_of_the_all_in_one_checkpoint(keys: Path):
    found: dict[str, Shape] = {}
    for name in TEXT_ENCODERS:
        encoder = component(sd3.ARCHITECTURE, name)
        found |= {encoder.checkpoint_prefix + key: shape for key, shape in parameters(encoder).items()}

    rest = stored(keys, "sd3-medium__comfy-allinone", "text_encoders.")
    assert found == {f"text_encoders.{key}": shape for key, shape in rest.items() if not key.endswith("logit_scale")}


@families
def test_diffusers_names_are_those_of_its_converter_row_by_row(name: str, keys: Path):
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    found = stored(keys, f"{name}__diffusers_transformer", "")

    converted.check(component(FAMILIES[name]), convert_sd3_transformer_checkpoint_to_diffusers, found)


def test_the_last_context_block_has_no_way_out_and_its_norm_is_swapped():
    large = component(sd3.LARGE)

    assert "joint_blocks.36.context_block.attn.proj" in large.modules
    assert "joint_blocks.37.context_block.attn.proj" not in large.modules
    norms = [large.diffusers[f"transformer_blocks.{index}.norm1_context.linear"] for index in (36, 37)]
    assert [[part.slice for part in norm.parts] for norm in norms] == [
        [None],
        [Slice(0, 2432, 2432), Slice(0, 0, 2432)],
    ]


def test_two_attentions_over_the_picture():
    """SimpleTuner's ``lycoris_transformer_blocks_3_attn2_to_q``: ComfyUI issue 5417."""
    paths = component(sd3.MEDIUM).paths

    assert paths["transformer_blocks.3.attn2.to_k"] == paths["joint_blocks.3.x_block.attn2.qkv.1"]
    assert paths["transformer_blocks.12.attn2.to_out.0"].path == "joint_blocks.12.x_block.attn2.proj"
    assert "transformer_blocks.13.attn2.to_q" not in paths
    assert "transformer_blocks.0.attn2.to_q" not in component(sd3.ARCHITECTURE).paths


def test_blocks():
    assert sd3.LARGE.blocks == ("base", *(f"joint{index:02d}" for index in range(38)))


HOST_SIDE = """
import json
import torch
from comfy.text_encoders import flux, sd3_clip

# Text encoders with all layers and without memory: what a LoRA's patches are looked up in.
for name, kind in (("sd3", sd3_clip.sd3_clip()), ("flux", flux.flux_clip())):
    with torch.device("meta"):
        model = kind(device="meta", dtype=torch.float32)
    print("SHAPES", json.dumps([name, {key: list(value.shape) for key, value in model.state_dict().items()}]))
"""


@pytest.mark.host
def test_text_encoders_have_the_hosts_keys(comfy_environment: HostEnvironment):
    """Each parameter of ours is in the host's CLIP under ``host_prefix``; it has a few more, as a scale of logits."""
    lines = [line for line in comfy_environment.run_code(HOST_SIDE).splitlines() if line.startswith("SHAPES ")]
    found: dict[str, dict[str, list[int]]] = dict(json.loads(line.removeprefix("SHAPES ")) for line in lines)

    assert found.keys() == {"sd3", "flux"}
    for family, keys in found.items():
        ours = {
            encoder.host_prefix + key: list(shape)
            for encoder in ARCHITECTURES.get(family).components
            if encoder.encoder
            for key, shape in parameters(encoder).items()
        }
        assert ours == {key: keys.get(key) for key in ours}
        assert {key.rpartition(".")[2] for key in keys.keys() - ours.keys()} <= {"logit_scale", "weight"}
        assert len(keys.keys() - ours.keys()) < 6
