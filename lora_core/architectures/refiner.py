"""The refiner of Stable Diffusion XL: a UNet of its own, and CLIP-G alone. Source: sd_xl_refiner's configuration."""

from __future__ import annotations

from ..types import TEXT_ENCODER
from . import clip, unet
from .spec import Architecture

UNET = unet.UNetConfig(
    model_channels=384,
    channel_mult=(1, 2, 4, 4),
    depth=(0, 4, 4, 0),
    middle_depth=4,
    context_dim=1280,
    linear_projection=True,
    label_dim=2560,
)

ARCHITECTURE = Architecture(
    name="sdxl_refiner",
    title="SDXL Refiner",
    build=lambda: (
        unet.build(UNET),
        clip.build(
            clip.CLIP_G,
            TEXT_ENCODER,
            checkpoint_prefix="conditioner.embedders.0.model.",
            kohya_prefixes=("lora_te", "lora_te2"),
            layout="open_clip",
            encoder="clip_g",
            # The pipeline has no first text encoder.
            diffusers_prefix="text_encoder_2",
        ),
    ),
    modelspec=("stable-diffusion-xl-v1-refiner", "stable-diffusion-xl-v0-9-refiner"),
    pipeline=("StableDiffusionXLImg2ImgPipeline",),
)
