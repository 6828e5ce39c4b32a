"""Stable Diffusion 2.0 and 2.1, with the inpainting and the depth model. Source: Stability's v2 configurations."""

from __future__ import annotations

from dataclasses import replace

from ..types import TEXT_ENCODER
from . import clip, unet
from .spec import Architecture, Component

UNET = unet.UNetConfig(
    model_channels=320,
    channel_mult=(1, 2, 4, 4),
    depth=(1, 1, 1, 0),
    middle_depth=1,
    context_dim=1024,
    linear_projection=True,
)


def build(in_channels: int) -> tuple[Component, ...]:
    """UNet and text encoder; the variants differ in the latent channels that go in.

    The condition is the output of the last layer but one. The 24th layer is in most checkpoints and in ComfyUI's
    model, not in diffusers' nor in LoRAs, since it has no effect.
    """
    return (
        unet.build(replace(UNET, in_channels=in_channels)),
        clip.build(
            clip.CLIP_H,
            TEXT_ENCODER,
            checkpoint_prefix="cond_stage_model.model.",
            # lora_te1 occurs in files that diffusers' scripts converted.
            kohya_prefixes=("lora_te", "lora_te1"),
            layout="open_clip",
            encoder="clip_h",
        ),
    )


ARCHITECTURE = Architecture(
    name="sd21",
    title="SD 2.1",
    build=lambda: build(4),
    modelspec=(
        "stable-diffusion-v2-512",
        "stable-diffusion-v2-768-v",
        "stable-diffusion-v2-1",
        "stable-diffusion-v2-1-768",
    ),
    base_versions=("sd_v2", "sd_v2_v", "sd_v2_768_v", "sd_2.0", "sd_2.1", "sd2"),
    pipeline=("StableDiffusionPipeline",),
)

# The latent of the picture and the mask go in beside the noise.
INPAINT = Architecture(
    name="sd21_inpaint",
    title="SD 2 Inpainting",
    build=lambda: build(9),
    pipeline=("StableDiffusionInpaintPipeline",),
    variant_of="sd21",
)

# A map of depth goes in beside the noise.
DEPTH = Architecture(
    name="sd21_depth",
    title="SD 2 Depth",
    build=lambda: build(5),
    pipeline=("StableDiffusionDepth2ImgPipeline",),
    variant_of="sd21",
)
