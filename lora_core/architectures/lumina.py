"""Lumina-Image 2.0. Source: Alpha-VLLM's published configuration, and diffusers' conversion of its checkpoint."""

from __future__ import annotations

from ..types import TEXT_ENCODER
from . import llm, nextdit
from .spec import Architecture

TRANSFORMER = nextdit.NextDiTConfig(
    width=2304,
    layers=26,
    heads=24,
    kv_heads=8,
    mlp=9216,
    text_width=2304,
    time_width=1024,
    modulation="adaLN_modulation.1",
    attention="attn",
    names={
        "t_embedder.mlp.0": "time_caption_embed.timestep_embedder.linear_1",
        "t_embedder.mlp.2": "time_caption_embed.timestep_embedder.linear_2",
        "cap_embedder.0": "time_caption_embed.caption_embedder.0",
        "cap_embedder.1": "time_caption_embed.caption_embedder.1",
        "final_layer.adaLN_modulation.1": "norm_out.linear_1",
        "final_layer.linear": "norm_out.linear_2",
    },
    block_names={
        "attention.out": "attn.to_out.0",
        "attention.q_norm": "attn.norm_q",
        "attention.k_norm": "attn.norm_k",
        "attention_norm1": "norm1.norm",
        "attention_norm2": "norm2",
        "adaLN_modulation.1": "norm1.linear",
        "feed_forward.w1": "feed_forward.linear_1",
        "feed_forward.w2": "feed_forward.linear_2",
        "feed_forward.w3": "feed_forward.linear_3",
    },
    # Without modulation the norm is not wrapped.
    text_names={"attention_norm1": "norm1"},
)

ARCHITECTURE = Architecture(
    name="lumina2",
    title="Lumina 2",
    build=lambda: (
        nextdit.build(TRANSFORMER),
        llm.build(llm.GEMMA2_2B, TEXT_ENCODER, "gemma2_2b", kohya_prefixes=("lora_te", "lora_te1")),
    ),
    modelspec=("lumina-2",),
    base_versions=("lumina2",),
    pipeline=("Lumina2Pipeline", "Lumina2Text2ImgPipeline"),
)
