"""Qwen-Image, its editing versions and Qwen-Image-Layered. Source: Qwen's published transformer configurations.

The published files have diffusers' names, and so have ComfyUI's. The editing versions differ in weights alone.
"""

from __future__ import annotations

from ..types import TEXT_ENCODER
from . import llm, plain, qwen_vl
from .spec import Architecture, Component, linear

WIDTH = 3072
LAYERS = 60
HEAD = 128
PATCH = 64
TEXT = 3584
# What diffusers' fuse_qkv_projections makes of three layers.
FUSED = {
    "attn.to_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "attn.to_added_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}


def _outside() -> plain.Rows:
    """Modules outside blocks."""
    yield "time_text_embed.timestep_embedder.linear_1", linear(WIDTH, 256)
    yield "time_text_embed.timestep_embedder.linear_2", linear(WIDTH, WIDTH)
    yield "txt_norm", {"weight": (TEXT,)}
    yield "img_in", linear(WIDTH, PATCH)
    yield "txt_in", linear(WIDTH, TEXT)
    yield "norm_out.linear", linear(2 * WIDTH, WIDTH)
    yield "proj_out", linear(PATCH, WIDTH)


def _block() -> plain.Rows:
    """Modules of one block: picture and text each have a modulation, a feed-forward and a half of the attention."""
    for side in ("img", "txt"):
        yield f"{side}_mod.1", linear(6 * WIDTH, WIDTH)
        yield f"{side}_mlp.net.0.proj", linear(4 * WIDTH, WIDTH)
        yield f"{side}_mlp.net.2", linear(WIDTH, 4 * WIDTH)
    for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
        yield f"attn.{name}", {"weight": (HEAD,)}
    for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"):
        yield f"attn.{name}", linear(WIDTH, WIDTH)


def transformer(*, layered: bool = False) -> Component:
    """The denoiser; the layered one also embeds which layer a picture is."""
    more: plain.Rows = [("time_text_embed.addition_t_embedding", {"weight": (2, WIDTH)})] if layered else []
    return plain.build([*_outside(), *more], _block(), "transformer_blocks", LAYERS, fused=FUSED)


def _text_encoder() -> Component:
    return qwen_vl.build(llm.QWEN25_VL_7B, TEXT_ENCODER, "qwen25_7b", kohya_prefixes=("lora_te", "lora_te1"))


ARCHITECTURE = Architecture(
    name="qwen_image",
    title="Qwen-Image",
    build=lambda: (transformer(), _text_encoder()),
    modelspec=("Qwen-Image", "Qwen-Image-Edit", "Qwen-Image-Edit-Plus", "Qwen-Image-Edit-2511", "qwen-image"),
    base_versions=("qwen_image", "qwen_image_edit", "qwen_image_edit_plus"),
    pipeline=(
        "QwenImagePipeline",
        "QwenImageImg2ImgPipeline",
        "QwenImageInpaintPipeline",
        "QwenImageEditPipeline",
        "QwenImageEditInpaintPipeline",
        "QwenImageEditPlusPipeline",
    ),
)

LAYERED = Architecture(
    name="qwen_image_layered",
    title="Qwen-Image-Layered",
    build=lambda: (transformer(layered=True), _text_encoder()),
    modelspec=("Qwen-Image-Layered",),
    base_versions=("qwen_image_layered",),
    pipeline=("QwenImageLayeredPipeline",),
    variant_of="qwen_image",
)
