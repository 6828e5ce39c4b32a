"""Stable Diffusion XL base. Source: Stability's sd_xl_base configuration."""

from __future__ import annotations

from ..types import TEXT_ENCODER, TEXT_ENCODER_2
from . import clip, unet
from .spec import Architecture

UNET = unet.UNetConfig(
    model_channels=320,
    channel_mult=(1, 2, 4),
    depth=(0, 2, 10),
    middle_depth=10,
    context_dim=2048,
    linear_projection=True,
    label_dim=2816,
)

ARCHITECTURE = Architecture(
    name="sdxl",
    title="SDXL",
    build=lambda: (
        unet.build(UNET),
        clip.build(
            clip.ClipConfig(width=768, layers=12),
            TEXT_ENCODER,
            checkpoint_prefix="conditioner.embedders.0.transformer.",
            kohya_prefixes=("lora_te1", "lora_te"),
        ),
        clip.build(
            clip.ClipConfig(width=1280, layers=32, projection=1280),
            TEXT_ENCODER_2,
            checkpoint_prefix="conditioner.embedders.1.model.",
            kohya_prefixes=("lora_te2",),
            layout="open_clip",
            encoder="clip_g",
        ),
    ),
    modelspec=("stable-diffusion-xl-v1-base", "stable-diffusion-xl-v0-9-base"),
    base_versions=("sdxl_base_v1-0", "sdxl_base_v0-9", "sdxl"),
    pipeline=("StableDiffusionXLPipeline",),
)
