"""What each program writes, in a few of its keys: the format and family that are found, and the places.

Inventories of whole files are in ``test_inventories.py``; here each program has a line even where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch

from lora_core import map_source
from lora_core.architectures import ARCHITECTURES
from lora_core.io import TensorDict

Pairs = Mapping[str, tuple[int, int]]
KOHYA, PEFT, DEFAULT = ("lora_down", "lora_up"), ("lora_A", "lora_B"), ("lora_A.default", "lora_B.default")
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.1"
OWN = "input_blocks.4.1.transformer_blocks.1"
CLIP, FC1 = "text_model.encoder.layers.0.mlp.fc1", (3072, 768)


@dataclass(frozen=True)
class Case:
    """Modules with (outputs, inputs), how the program calls the factors, and what has to be found.

    Args:
        others: further tensors, key -> shape.
        paths: of the modules, in the order of the file.
    """

    modules: Pairs
    factors: tuple[str, str]
    format: str
    architecture: str
    paths: list[str]
    alpha: bool = True
    others: Mapping[str, tuple[int, ...]] | None = None

    def tensors(self) -> dict[str, torch.Tensor]:
        made: dict[str, torch.Tensor] = {}
        down, up = self.factors
        for name, (outputs, inputs) in self.modules.items():
            made[f"{name}.{down}.weight"] = torch.zeros(4, inputs)
            made[f"{name}.{up}.weight"] = torch.zeros(outputs, 4)
            if self.alpha:
                made[f"{name}.alpha"] = torch.tensor(4.0)
        return made | {key: torch.zeros(shape) for key, shape in (self.others or {}).items()}


SDXL = [f"{OWN}.attn1.to_q", CLIP]
CASES = {
    "OneTrainer legacy": Case(
        {f"lora_unet_{BLOCK.replace('.', '_')}_attn1_to_q": (640, 640), f"lora_te1_{CLIP.replace('.', '_')}": FC1},
        KOHYA, "kohya", "sdxl", SDXL,
    ),
    "OneTrainer kohya": Case(
        {f"lora_unet_{OWN.replace('.', '_')}_attn1_to_q": (640, 640), f"lora_te1_{CLIP.replace('.', '_')}": FC1},
        KOHYA, "kohya", "sdxl", SDXL,
    ),
    "OneTrainer diffusers": Case(
        {f"unet.{BLOCK}.attn1.to_q": (640, 640), f"text_encoder.{CLIP}": FC1}, KOHYA, "diffusers", "sdxl", SDXL
    ),
    "OneTrainer comfy": Case(
        {f"diffusion_model.{OWN}.attn1.to_q": (640, 640), f"text_encoders.clip_l.transformer.{CLIP}": FC1},
        KOHYA, "comfy", "sdxl", SDXL,
    ),
    "OneTrainer OMI": Case(
        {f"unet.{OWN}.attn1.to_q": (640, 640), f"clip_l.{CLIP}": FC1}, KOHYA, "omi", "sdxl", SDXL
    ),
    "OneTrainer OMI with T5": Case(
        {"transformer.double_blocks.0.img_attn.qkv": (9216, 3072),
         "t5.encoder.block.0.layer.0.SelfAttention.q": (4096, 4096)},
        KOHYA, "omi", "flux", ["double_blocks.0.img_attn.qkv", "encoder.block.0.layer.0.SelfAttention.q"],
    ),
    "lightx2v": Case(
        {"diffusion_model.blocks.0.self_attn.q": (5120, 5120)}, KOHYA, "comfy", "wan_t2v_14b",
        ["blocks.0.self_attn.q", "blocks.0.self_attn.q", "blocks.0", "blocks.0.self_attn.norm_q", "patch_embedding"],
        others={"diffusion_model.blocks.0.self_attn.q.diff_b": (5120,), "diffusion_model.blocks.0.diff_m": (1, 6, 5120),
                "diffusion_model.blocks.0.self_attn.norm_q.diff": (5120,),
                "diffusion_model.patch_embedding.diff": (5120, 16, 1, 2, 2)},
    ),
    "musubi": Case(
        {"lora_unet_blocks_0_self_attn_q": (5120, 5120)}, KOHYA, "kohya", "wan_t2v_14b", ["blocks.0.self_attn.q"]
    ),
    "Wan-Fun": Case(
        {"lora_unet__blocks_0_self_attn_q": (1536, 1536)}, KOHYA, "kohya", "wan21_t2v_1_3b", ["blocks.0.self_attn.q"]
    ),
    "DiffSynth": Case(
        {"blocks.0.self_attn.q": (1536, 1536)}, DEFAULT, "original", "wan21_t2v_1_3b", ["blocks.0.self_attn.q"],
        alpha=False,
    ),
    "diffusion-pipe": Case(
        {"diffusion_model.blocks.0.ffn.0": (13824, 5120)}, PEFT, "comfy", "wan_t2v_14b", ["blocks.0.ffn.0"],
        alpha=False,
    ),
    "SimpleTuner": Case(
        {"transformer.base_model.model.single_transformer_blocks.0.proj_out": (3072, 15360)}, PEFT, "peft", "flux",
        ["single_blocks.0.linear2"], alpha=False,
    ),
    "XLabs and USO": Case(
        {"double_blocks.0.processor.qkv_lora1": (9216, 3072), "double_blocks.0.processor.proj_lora2": (3072, 3072)},
        ("down", "up"), "xlabs", "flux", ["double_blocks.0.img_attn.qkv", "double_blocks.0.txt_attn.proj"],
        alpha=False,
    ),
    # The input of a 3 x 3 convolution of 320 channels in one dimension, as ComfyUI's extraction leaves it.
    "ComfyUI's extract": Case(
        {"diffusion_model.input_blocks.1.0.in_layers.2": (320, 2880)}, KOHYA, "comfy", "sd15",
        ["input_blocks.1.0.in_layers.2"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_program(case: str) -> None:
    wanted = CASES[case]
    tensors = wanted.tensors()
    adapter = map_source(TensorDict(tensors, "ink.safetensors"))
    report = adapter.report
    assert (report.format, report.architecture) == (wanted.format, wanted.architecture)
    assert set(report.used) == set(tensors)
    assert [target.module.path for target, _ in adapter.deltas] == wanted.paths
    for target, delta in adapter.deltas:  # and it can be computed at the place's own shape
        shape = ARCHITECTURES.get(report.architecture).shape(target)
        assert shape is not None
        assert delta.apply(torch.ones(shape), 1.0).equal(torch.ones(shape))  # all factors are zeros
