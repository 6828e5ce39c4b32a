"""Stable Diffusion XL base, with the inpainting and the picture-editing model.

Sources: Stability's sd_xl_base configuration; diffusers' stable-diffusion-xl-1.0-inpainting-0.1 and its
InstructPix2Pix for SDXL, of the layout of Stability's CosXL Edit.
"""

from __future__ import annotations

from dataclasses import replace

from ..types import TEXT_ENCODER, TEXT_ENCODER_2
from . import clip, unet
from .spec import Architecture, Component

UNET = unet.UNetConfig(
    model_channels=320,
    channel_mult=(1, 2, 4),
    depth=(0, 2, 10),
    middle_depth=10,
    context_dim=2048,
    linear_projection=True,
    label_dim=2816,
)


def build(config: unet.UNetConfig) -> tuple[Component, ...]:
    """UNet and both text encoders."""
    return (
        unet.build(config),
        clip.build(
            clip.CLIP_L,
            TEXT_ENCODER,
            checkpoint_prefix="conditioner.embedders.0.transformer.",
            kohya_prefixes=("lora_te1", "lora_te"),
        ),
        clip.build(
            clip.CLIP_G,
            TEXT_ENCODER_2,
            checkpoint_prefix="conditioner.embedders.1.model.",
            kohya_prefixes=("lora_te2",),
            layout="open_clip",
            encoder="clip_g",
        ),
    )


ARCHITECTURE = Architecture(
    name="sdxl",
    title="SDXL",
    build=lambda: build(UNET),
    modelspec=("stable-diffusion-xl-v1-base", "stable-diffusion-xl-v0-9-base"),
    base_versions=("sdxl_base_v1-0", "sdxl_base_v0-9", "sdxl"),
    pipeline=("StableDiffusionXLPipeline",),
)

# The latent of the picture and the mask go in beside the noise.
INPAINT = Architecture(
    name="sdxl_inpaint",
    title="SDXL Inpainting",
    build=lambda: build(replace(UNET, in_channels=9)),
    pipeline=("StableDiffusionXLInpaintPipeline",),
    variant_of="sdxl",
)

# The latent of the picture to edit goes in beside the noise.
PIX2PIX = Architecture(
    name="sdxl_pix2pix",
    title="SDXL InstructPix2Pix",
    build=lambda: build(replace(UNET, in_channels=8)),
    modelspec=("stable-diffusion-xl-v1-edit",),
    pipeline=("StableDiffusionXLInstructPix2PixPipeline",),
    variant_of="sdxl",
)
