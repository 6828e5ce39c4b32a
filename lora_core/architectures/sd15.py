"""Stable Diffusion 1.x, with the inpainting and the picture-editing model.

Sources: the CompVis/runwayml v1 inference configurations, and InstructPix2Pix's.
"""

from __future__ import annotations

from dataclasses import replace

from ..types import TEXT_ENCODER
from . import clip, unet
from .spec import Architecture, Component

UNET = unet.UNetConfig(
    model_channels=320, channel_mult=(1, 2, 4, 4), depth=(1, 1, 1, 0), middle_depth=1, context_dim=768
)


def build(in_channels: int) -> tuple[Component, ...]:
    """UNet and text encoder; the variants differ in the latent channels that go in."""
    return (
        unet.build(replace(UNET, in_channels=in_channels)),
        clip.build(
            clip.CLIP_L,
            TEXT_ENCODER,
            checkpoint_prefix="cond_stage_model.transformer.",
            # lora_te1 occurs in files that diffusers' scripts converted.
            kohya_prefixes=("lora_te", "lora_te1"),
        ),
    )


ARCHITECTURE = Architecture(
    name="sd15",
    title="SD 1.5",
    build=lambda: build(4),
    modelspec=("stable-diffusion-v1",),
    base_versions=("sd_v1", "sd_1.5", "sd1"),
    pipeline=("StableDiffusionPipeline",),
)

# The latent of the picture and the mask go in beside the noise.
INPAINT = Architecture(
    name="sd15_inpaint",
    title="SD 1.5 Inpainting",
    build=lambda: build(9),
    pipeline=("StableDiffusionInpaintPipeline",),
    variant_of="sd15",
)

# The latent of the picture to edit goes in beside the noise.
PIX2PIX = Architecture(
    name="sd15_pix2pix",
    title="SD 1.5 InstructPix2Pix",
    build=lambda: build(8),
    pipeline=("StableDiffusionInstructPix2PixPipeline",),
    variant_of="sd15",
)
