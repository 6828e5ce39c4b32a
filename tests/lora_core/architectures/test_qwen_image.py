"""Qwen-Image has the names of diffusers, its text encoder those of the published file and of transformers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lora_core import map_source
from lora_core.architectures import Architecture, Component, Location, llm, qwen_image, qwen_vl
from lora_core.architectures.spec import parameter_name
from lora_core.io import TensorDict
from lora_core.types import TEXT_ENCODER, Shape


def shapes(component: Component, *, diffusers: bool = False) -> dict[str, Shape]:
    """Name of a parameter -> shape."""
    return {
        parameter_name(module.diffusers if diffusers else path, parameter): shape
        for path, module in component.modules.items()
        for parameter, shape in module.shapes.items()
    }


def text_encoder(architecture: Architecture = qwen_image.ARCHITECTURE) -> Component:
    return architecture.components[1]


def test_the_text_encoder_has_the_names_of_transformers():
    from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

    settings = AutoConfig.for_model("qwen2_5_vl")
    for name, value in {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 1,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
    }.items():
        setattr(settings.text_config, name, value)
    settings.vision_config.hidden_size, settings.vision_config.out_hidden_size = 1280, 3584
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(settings)
    one_layer = replace(llm.QWEN25_VL_7B, layers=1)
    component = qwen_vl.build(one_layer, TEXT_ENCODER, "qwen25_7b", ("lora_te",))

    assert shapes(component, diffusers=True) == {name: tuple(p.shape) for name, p in model.state_dict().items()}


def test_names_that_diffusers_gives_fused_layers_mean_three_modules():
    """A small model of diffusers' own, fused: the rows of to_qkv are those of q, k and v, one after the other."""
    from diffusers import QwenImageTransformer2DModel

    small = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        axes_dims_rope=(4, 4, 8),
    )
    attention = small.transformer_blocks[0].attn
    attention.fuse_projections()
    weights = small.state_dict()
    paths = qwen_image.ARCHITECTURE.components[0].paths

    for fused in ("transformer_blocks.0.attn.to_qkv", "transformer_blocks.0.attn.to_added_qkv"):
        for parameter in ("weight", "bias"):
            parts = [weights[f"{part.path}.{parameter}"] for part in paths[fused].parts]
            assert torch.equal(torch.cat(parts), weights[f"{fused}.{parameter}"])


def test_the_layered_model_takes_the_familys_loras_and_has_one_module_more():
    plain, layered = (set(row.components[0].modules) for row in (qwen_image.ARCHITECTURE, qwen_image.LAYERED))

    assert layered - plain == {"time_text_embed.addition_t_embedding"}
    assert plain < layered
    assert qwen_image.LAYERED.family == "qwen_image"


SPELLINGS = (
    "lora_unet_transformer_blocks_7_txt_mlp_net_0_proj",
    "lycoris_transformer_blocks_7_txt_mlp_net_0_proj",
    "transformer_blocks.7.txt_mlp.net.0.proj",
    "transformer.transformer_blocks.7.txt_mlp.net.0.proj",
    "diffusion_model.transformer_blocks.7.txt_mlp.net.0.proj",
)


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_a_module(name: str):
    file = {
        f"{name}.lora_down.weight": torch.zeros(4, 3072),
        f"{name}.lora_up.weight": torch.zeros(12288, 4),
        # Qwen-Image-Lightning's alphas are int64.
        f"{name}.alpha": torch.tensor(2),
    }

    report = map_source(TensorDict(file, "spelling")).report

    assert report.complete
    (module,) = report.modules
    assert report.architecture == "qwen_image"
    assert module.target.module.path == "transformer_blocks.7.txt_mlp.net.0.proj"
    assert module.alpha == 2


def test_a_prompt_reader_has_names_with_and_without_language_model():
    paths = text_encoder().paths

    for name in ("model.language_model.layers.3.mlp.up_proj", "model.layers.3.mlp.up_proj", "layers.3.mlp.up_proj"):
        assert paths[name] == Location("model.layers.3.mlp.up_proj")
    assert paths["model.visual.blocks.31.attn.qkv"] == paths["visual.blocks.31.attn.qkv"]
