"""Stable Diffusion 3 medium, 3.5 medium and 3.5 large. Source: Stability's configurations, real checkpoints.

The three are families of their own: 3.5 large is wider, and 3.5 medium has 3 medium's width but other attentions in
its first blocks, so that a LoRA for one fits most modules of the other and does something else there.
"""

from __future__ import annotations

from dataclasses import replace

from ..types import TEXT_ENCODER, TEXT_ENCODER_2, TEXT_ENCODER_3
from . import clip, joint, t5
from .spec import Architecture, Component


def _build(transformer: joint.JointConfig) -> tuple[Component, ...]:
    clip_l = replace(clip.CLIP_L, projection=768)
    clip_g = "text_encoders.clip_g.transformer."
    return (
        joint.build(transformer),
        clip.build(clip_l, TEXT_ENCODER, "text_encoders.clip_l.transformer.", ("lora_te1",)),
        clip.build(clip.CLIP_G, TEXT_ENCODER_2, clip_g, ("lora_te2",), encoder="clip_g"),
        t5.build(t5.T5_XXL, TEXT_ENCODER_3, ("lora_te3",)),
    )


PIPELINES = ("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline")

ARCHITECTURE = Architecture(
    name="sd3",
    title="SD 3 medium",
    build=lambda: _build(joint.JointConfig(layers=24)),
    modelspec=("stable-diffusion-3-medium", "stable-diffusion-v3-medium", "stable-diffusion-3"),
    base_versions=("medium", "sd3"),
    pipeline=PIPELINES,
)

MEDIUM = Architecture(
    name="sd35_medium",
    title="SD 3.5 medium",
    build=lambda: _build(joint.JointConfig(layers=24, positions=384, qk_norm=True, dual=13)),
    modelspec=("stable-diffusion-3-5-medium", "stable-diffusion-3.5-medium", "stable-diffusion-v3.5-medium"),
    base_versions=("5-medium",),
    pipeline=PIPELINES,
)

LARGE = Architecture(
    name="sd35_large",
    title="SD 3.5 large",
    build=lambda: _build(joint.JointConfig(layers=38, qk_norm=True)),
    modelspec=("stable-diffusion-3-5-large", "stable-diffusion-3.5-large", "stable-diffusion-v3.5-large"),
    base_versions=("5-large",),
    pipeline=PIPELINES,
)
