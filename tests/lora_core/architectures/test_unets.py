"""UNets of which there is no inventory, and the host's own text encoders, held against diffusers' and ComfyUI's code.

Models are made without weights (on torch's meta device): only their names and shapes are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from host_harness.environment import HostEnvironment
from lora_core.architectures import ARCHITECTURES, Component
from lora_core.types import DENOISER, TEXT_ENCODERS, Shape

Shapes = dict[str, Shape]

SDXL_LIKE = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
# From the config.json of segmind/SSD-1B and segmind/Segmind-Vega.
SSD_1B = {"transformer_layers_per_block": (1, 2, 4), "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), 1)}
VEGA = {"transformer_layers_per_block": (1, 1, 2), "reverse_transformer_layers_per_block": ((2, 2, 2), (1, 1, 1), 1)}
# From the config.json of stabilityai/stable-cascade-prior and stabilityai/stable-cascade.
ALL_LAYERS = ("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock")
STAGE_C = {
    "block_out_channels": (2048, 2048),
    "down_num_layers_per_block": (8, 24),
    "up_num_layers_per_block": (24, 8),
    "down_blocks_repeat_mappers": (1, 1),
    "up_blocks_repeat_mappers": (1, 1),
    "num_attention_heads": (32, 32),
    "block_types_per_layer": (ALL_LAYERS, ALL_LAYERS),
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 1,
    "conditioning_dim": 2048,
    "clip_text_in_channels": 1280,
    "clip_text_pooled_in_channels": 1280,
    "clip_image_in_channels": 768,
    "clip_seq": 4,
    "kernel_size": 3,
    "self_attn": True,
    "switch_level": (False,),
    "timestep_conditioning_type": ("sca", "crp"),
    "dropout": (0.1, 0.1),
}
STAGE_B = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_num_layers_per_block": (2, 6, 28, 6),
    "up_num_layers_per_block": (6, 28, 6, 2),
    "down_blocks_repeat_mappers": (1, 1, 1, 1),
    "up_blocks_repeat_mappers": (3, 3, 2, 2),
    "num_attention_heads": (0, 0, 20, 20),
    "block_types_per_layer": (ALL_LAYERS[:2], ALL_LAYERS[:2], ALL_LAYERS, ALL_LAYERS),
    "in_channels": 4,
    "out_channels": 4,
    "patch_size": 2,
    "conditioning_dim": 1280,
    "clip_text_pooled_in_channels": 1280,
    "clip_seq": 4,
    "effnet_in_channels": 16,
    "pixel_mapper_in_channels": 3,
    "kernel_size": 3,
    "self_attn": True,
    "timestep_conditioning_type": ("sca",),
    "dropout": (0, 0, 0.1, 0.1),
}


def unet(**config: Any) -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**SDXL_LIKE, **config)


def cascade(**config: Any) -> torch.nn.Module:
    from diffusers.models.unets import StableCascadeUNet

    return StableCascadeUNet(**config)


def motion() -> torch.nn.Module:
    from diffusers import MotionAdapter

    return MotionAdapter(use_motion_mid_block=True)


MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "ssd_1b": lambda: unet(**SSD_1B),
    "segmind_vega": lambda: unet(**VEGA),
    "cascade_c": lambda: cascade(**STAGE_C),
    "cascade_b": lambda: cascade(**STAGE_B),
    "sd15_motion": motion,
}


def denoiser(architecture: str) -> Component:
    found = ARCHITECTURES.get(architecture).component(DENOISER)
    assert found is not None
    return found


def described(component: Component, diffusers: bool = False, prefix: str = "") -> Shapes:
    return {
        f"{prefix}{module.diffusers if diffusers else path}.{parameter}": shape
        for path, module in component.modules.items()
        for parameter, shape in module.shapes.items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_names_and_shapes_are_those_of_diffusers(name: str) -> None:
    with torch.device("meta"):
        model = MODELS[name]()
    stored = {key: tuple(weight.shape) for key, weight in model.named_parameters()}
    assert described(denoiser(name), diffusers=True) == stored


# Runs in the host's Python: names and shapes of its models.
HOST_MODELS = """
import json, torch
import comfy.ops, comfy.sdxl_clip, comfy.sd1_clip, comfy.model_detection
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.text_encoders import sd2_clip

said = {}
for name, path in PATHS.items():
    stored = {key: torch.empty(shape, device="meta") for key, shape in json.load(open(path)).items()}
    config = comfy.model_detection.unet_config_from_diffusers_unet(stored)
    said[name] = UNetModel(**config, device="meta", operations=comfy.ops.disable_weight_init)
with torch.device("meta"):
    said["sd21"] = sd2_clip.SD2ClipModel(device="meta")
    said["sdxl"] = comfy.sdxl_clip.SDXLClipModel(device="meta")
    said["sdxl_refiner"] = comfy.sdxl_clip.SDXLRefinerClipModel(device="meta")
    said["cascade_c"] = comfy.sdxl_clip.StableCascadeClipModel(device="meta")
shapes = {name: {key: list(p.shape) for key, p in model.state_dict().items()} for name, model in said.items()}
print(json.dumps(shapes))
"""


@pytest.fixture(scope="module")
def host(comfy_environment: HostEnvironment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shapes]:
    paths: dict[str, str] = {}
    for name in ("ssd_1b", "segmind_vega"):
        with torch.device("meta"):
            model = MODELS[name]()
        path = Path(tmp_path_factory.mktemp(name)) / "shapes.json"
        path.write_text(json.dumps({key: tuple(weight.shape) for key, weight in model.named_parameters()}))
        paths[name] = str(path)
    printed = comfy_environment.run_code(f"PATHS = {paths!r}\n{HOST_MODELS}")
    found: dict[str, dict[str, list[int]]] = json.loads(printed.strip().splitlines()[-1])
    return {name: {key: tuple(shape) for key, shape in model.items()} for name, model in found.items()}


@pytest.mark.host
@pytest.mark.parametrize("name", ["ssd_1b", "segmind_vega"])
def test_canonical_names_are_the_hosts(name: str, host: dict[str, Shapes]) -> None:
    """The host finds the model from diffusers' shapes, and makes it with its own names."""
    assert described(denoiser(name)) == host[name]


@pytest.mark.host
@pytest.mark.parametrize("name", ["sd21", "sdxl", "sdxl_refiner", "cascade_c"])
def test_text_encoders_have_the_hosts_names(name: str, host: dict[str, Shapes]) -> None:
    """All that we describe is there; the host has a projection for CLIP-L besides, and a scale."""
    encoders = [row for row in ARCHITECTURES.get(name).components if row.name in TEXT_ENCODERS]
    ours = {key: shape for row in encoders for key, shape in described(row, prefix=row.host_prefix).items()}
    rest = host[name].keys() - ours.keys()
    assert {key: host[name].get(key) for key in ours} == ours
    assert {key for key in rest if not key.endswith(("logit_scale", "text_projection.weight"))} == set()
