"""Stable Diffusion 1.x. Source: the CompVis/runwayml v1 inference configuration."""

from __future__ import annotations

from ..types import TEXT_ENCODER
from . import clip, unet
from .spec import Architecture

UNET = unet.UNetConfig(
    model_channels=320, channel_mult=(1, 2, 4, 4), depth=(1, 1, 1, 0), middle_depth=1, context_dim=768
)

ARCHITECTURE = Architecture(
    name="sd15",
    title="SD 1.5",
    build=lambda: (
        unet.build(UNET),
        clip.build(
            clip.ClipConfig(width=768, layers=12),
            TEXT_ENCODER,
            checkpoint_prefix="cond_stage_model.transformer.",
            # lora_te1 occurs in files that diffusers' scripts converted.
            kohya_prefixes=("lora_te", "lora_te1"),
        ),
    ),
    modelspec=("stable-diffusion-v1",),
    base_versions=("sd_v1", "sd_1.5", "sd1"),
    pipeline=("StableDiffusionPipeline",),
)
