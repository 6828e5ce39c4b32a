"""UNets of which there is no inventory, and the host's own text encoders, held against diffusers' and ComfyUI's code.

Models are made without weights (on torch's meta device): only their names and shapes are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

from host_harness.environment import HostEnvironment
from lora_core.architectures import ARCHITECTURES, Component
from lora_core.architectures.recognise import recognise
from lora_core.types import DENOISER, Shape

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
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(**SDXL_LIKE, **config)


def cascade(**config: Any) -> torch.nn.Module:
    from diffusers.models.unets.unet_stable_cascade import StableCascadeUNet

    return StableCascadeUNet(**config)


def motion() -> torch.nn.Module:
    from diffusers.models.unets.unet_motion_model import MotionAdapter

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


# Runs in the host's Python: names and shapes of its models, and its tables of LoRA names for models of ours.
HOST = """
import json, torch
import comfy.lora, comfy.model_base, comfy.model_detection, comfy.ops, comfy.sdxl_clip
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.text_encoders import sd2_clip

models = {}
for name, path in DIFFUSERS.items():
    stored = {key: torch.empty(shape, device="meta") for key, shape in json.load(open(path)).items()}
    config = comfy.model_detection.unet_config_from_diffusers_unet(stored)
    models[name] = UNetModel(**config, device="meta", operations=comfy.ops.disable_weight_init)
with torch.device("meta"):
    models["sd21"] = sd2_clip.SD2ClipModel(device="meta")
    models["sdxl"] = comfy.sdxl_clip.SDXLClipModel(device="meta")
    models["sdxl_refiner"] = comfy.sdxl_clip.SDXLRefinerClipModel(device="meta")
    models["cascade_c"] = comfy.sdxl_clip.StableCascadeClipModel(device="meta")
shapes = {name: {key: list(p.shape) for key, p in model.state_dict().items()} for name, model in models.items()}

class Model:
    def __init__(self, keys):
        self.keys = keys
    def state_dict(self):
        return dict.fromkeys(self.keys)

class Cascade(Model, comfy.model_base.StableCascade_C):
    pass

tables = {}
for name, path in OURS.items():
    ours = json.load(open(path))
    unet = {k: torch.empty(s, device="meta") for k, s in ours.items() if k.startswith("diffusion_model.")}
    model = (Cascade if name == "cascade_c" else Model)(unet)
    model.model_config = comfy.model_detection.model_config_from_unet(unet, "diffusion_model.")
    table = comfy.lora.model_lora_keys_unet(model, {})
    table = comfy.lora.model_lora_keys_clip(Model(ours.keys() - unet.keys()), table)
    tables[name] = {lora: key for lora, key in table.items() if lora.startswith("lora_") and key in ours}
print(json.dumps([shapes, tables]))
"""
NAMED = ["sd15", "sd15_inpaint", "sd21", "sd21_depth", "sdxl", "sdxl_pix2pix", "sdxl_refiner", "ssd_1b", "cascade_c"]
PRUNED = ["ssd_1b", "segmind_vega"]


class Host(NamedTuple):
    """What the host says: shapes of its models, and LoRA name -> key of a weight."""

    shapes: dict[str, Shapes]
    names: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def host(comfy_environment: HostEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Host:
    folder = tmp_path_factory.mktemp("shapes")

    def write(name: str, shapes: Shapes) -> str:
        path = folder / f"{name}.json"
        path.write_text(json.dumps(shapes))
        return str(path)

    diffusers = {name: write(f"{name}-diffusers", described(denoiser(name), diffusers=True)) for name in PRUNED}
    ours = {name: write(name, whole(name)) for name in NAMED}
    printed = comfy_environment.run_code(f"DIFFUSERS, OURS = {diffusers!r}, {ours!r}\n{HOST}")
    shapes, names = json.loads(printed.strip().splitlines()[-1])
    return Host({name: {key: tuple(shape) for key, shape in model.items()} for name, model in shapes.items()}, names)


def whole(name: str) -> Shapes:
    """All components under the host's keys."""
    components = ARCHITECTURES.get(name).components
    return {key: shape for row in components for key, shape in described(row, prefix=row.host_prefix).items()}


@pytest.mark.host
@pytest.mark.parametrize("name", PRUNED)
def test_canonical_names_are_the_hosts(name: str, host: Host) -> None:
    """The host finds the model from diffusers' shapes, and makes it with its own names."""
    assert described(denoiser(name)) == host.shapes[name]


@pytest.mark.host
@pytest.mark.parametrize("name", ["sd21", "sdxl", "sdxl_refiner", "cascade_c"])
def test_text_encoders_have_the_hosts_names(name: str, host: Host) -> None:
    """All that we describe is there; the host has a projection for CLIP-L besides, and a scale."""
    ours = {key: shape for key, shape in whole(name).items() if not key.startswith("diffusion_model.")}
    rest = host.shapes[name].keys() - ours.keys()
    assert {key: host.shapes[name].get(key) for key in ours} == ours
    assert {key for key in rest if not key.endswith(("logit_scale", "text_projection.weight"))} == set()


@pytest.mark.host
def test_the_hosts_text_encoders_are_recognised(host: Host) -> None:
    def found(name: str) -> str | None:
        shapes = host.shapes[name]
        row = recognise(shapes, {key.partition(".")[0] for key in shapes})
        return row and row.name

    assert [found(name) for name in ("sd21", "sdxl")] == ["sd21", "sdxl"]
    # Cascade's only one is the refiner's too: alone, the first family that has no other is taken.
    assert [found(name) for name in ("sdxl_refiner", "cascade_c")] == ["sdxl_refiner", "sdxl_refiner"]


@pytest.mark.host
@pytest.mark.parametrize("name", NAMED)
def test_kohya_names_mean_what_the_host_takes_them_for(name: str, host: Host) -> None:
    """Every one of the host's names is one of ours, for the same weight."""
    ours = {
        f"{prefix}_{path.replace('.', '_')}": f"{row.host_prefix}{location.path}.weight"
        for row in ARCHITECTURES.get(name).components
        for prefix in row.kohya_prefixes
        for path, location in row.paths.items()
        if not location.more
    }
    # Where CLIP-G is alone, the host takes it for Cascade's too, and its projection for that of a second encoder.
    table = {
        lora: key
        for lora, key in host.names[name].items()
        if not lora.endswith("_text_projection") and (name == "cascade_c" or not lora.startswith("lora_prior_te_"))
    }
    assert {lora: ours.get(lora) for lora in table} == table
    assert len(table) > 500
