"""Families that are a few lines on a shared builder, against diffusers' classes and conversions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import converted
from lora_core import map_source
from lora_core.architectures import ARCHITECTURES
from lora_core.io import TensorDict


def ernie() -> torch.nn.Module:
    from diffusers.models.transformers.transformer_ernie_image import ErnieImageTransformer2DModel

    # The class's own defaults are a smaller model; these are those of ComfyUI's class.
    return ErnieImageTransformer2DModel(
        hidden_size=4096, num_attention_heads=32, num_layers=36, ffn_hidden_size=12288, text_in_dim=3072
    )


def ltx_2b() -> torch.nn.Module:
    from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel

    return LTXVideoTransformer3DModel()


def ltx_13b() -> torch.nn.Module:
    from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel

    return LTXVideoTransformer3DModel(attention_head_dim=128, num_layers=48, cross_attention_dim=4096)


# Family -> diffusers' class with its published configuration, and its conversion of checkpoints.
FAMILIES: dict[str, tuple[Callable[[], torch.nn.Module], str]] = {
    "ernie_image": (ernie, "convert_ernie_image_transformer_checkpoint_to_diffusers"),
    "ltx_video": (ltx_2b, "convert_ltx_transformer_checkpoint_to_diffusers"),
    "ltx_video_13b": (ltx_13b, "convert_ltx_transformer_checkpoint_to_diffusers"),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_names_and_shapes_are_those_of_diffusers(name: str):
    from diffusers.loaders import single_file_utils

    model, converter = FAMILIES[name]

    denoiser = ARCHITECTURES.get(name).components[0]
    converted.check(denoiser, getattr(single_file_utils, converter), converted.meta(model))


def test_ltx2_has_the_names_of_diffusers():
    """But for the connectors, which are a model of their own in diffusers, and for two names of parameters."""
    from diffusers.loaders.single_file_utils import convert_ltx2_transformer_to_diffusers
    from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel

    whole = ARCHITECTURES.get("ltx2").components[0]
    modules = {path: module for path, module in whole.modules.items() if "_embeddings_connector" not in path}

    def ours(tensors: dict[str, Any]) -> dict[str, Any]:
        theirs = r"(audio|video)_a2v_cross_attn_scale_shift_table"
        return {re.sub(theirs, r"scale_shift_table_a2v_ca_\1", key): value for key, value in tensors.items()}

    inventory = ours(converted.meta(lambda: LTX2VideoTransformer3DModel(use_prompt_embeddings=True)))
    converted.check(
        replace(whole, modules=modules), lambda rows: ours(convert_ltx2_transformer_to_diffusers(rows)), inventory
    )


def lora(name: str) -> TensorDict:
    """All of these are 4096 wide."""
    file = {
        f"{name}.lora_down.weight": torch.zeros(4, 4096),
        f"{name}.lora_up.weight": torch.zeros(4096, 4),
        f"{name}.alpha": torch.tensor(4.0),
    }
    return TensorDict(file, "lora")


@pytest.mark.parametrize(
    ("name", "family", "path"),
    [
        # OneTrainer#1431: diffusers' path with kohya's suffixes
        ("transformer.layers.15.self_attention.to_k", "ernie_image", "layers.15.self_attention.to_k"),
        ("diffusion_model.layers.15.self_attention.to_k", "ernie_image", "layers.15.self_attention.to_k"),
        ("transformer.transformer_blocks.7.attn2.to_out.0", "ltx2", "transformer_blocks.7.attn2.to_out.0"),
        ("diffusion_model.transformer_blocks.7.attn1.to_q", "ltx2", "transformer_blocks.7.attn1.to_q"),
    ],
)
def test_names_of_loras(name: str, family: str, path: str):
    report = map_source(lora(name)).report

    assert report.complete
    assert report.architecture == family
    assert [module.target.module.path for module in report.modules] == [path]


def test_the_video_stream_of_ltx2_is_that_of_ltx_video_13b():
    """Nothing in such a file tells the two apart; the model that it is for does."""
    file = lora("diffusion_model.transformer_blocks.7.attn1.to_q")

    assert map_source(file, prefer="ltx_video_13b").architecture == "ltx_video_13b"
