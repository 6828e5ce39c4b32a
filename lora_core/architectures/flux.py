"""FLUX.1: dev, schnell, and dev's variants that take a second picture. Source: Black Forest Labs' configurations.

Kontext and Krea are dev in all shapes. LoRAs of one variant fit the others but for what only it has: the first layer
of control and fill models, the guidance of all but schnell.
"""

from __future__ import annotations

from dataclasses import replace

from ..types import TEXT_ENCODER, TEXT_ENCODER_2
from . import clip, streams, t5
from .spec import Architecture, Component

TRANSFORMER = streams.StreamsConfig(
    width=3072, double=19, single=38, context=4096, names=streams.FLUX_NAMES, pooled=768, guidance=True
)


def build(transformer: streams.StreamsConfig) -> tuple[Component, ...]:
    """Denoiser, CLIP-L and T5-XXL; kohya calls T5 the third text encoder, as in SD 3, OneTrainer the second."""
    return (
        streams.build(transformer),
        clip.build(clip.CLIP_L, TEXT_ENCODER, "text_encoders.clip_l.transformer.", ("lora_te1", "lora_te")),
        t5.build(t5.T5_XXL, TEXT_ENCODER_2, ("lora_te3", "lora_te2")),
    )


ARCHITECTURE = Architecture(
    name="flux",
    title="FLUX.1",
    build=lambda: build(TRANSFORMER),
    modelspec=("flux-1-dev", "Flux.1-dev", "flux-1", "flux_kontext"),
    base_versions=("flux1", "flux_kontext", "flux"),
    pipeline=("FluxPipeline", "FluxKontextPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
)

SCHNELL = Architecture(
    name="flux_schnell",
    title="FLUX.1 schnell",
    build=lambda: build(replace(TRANSFORMER, guidance=False)),
    modelspec=("flux-1-schnell", "Flux.1-schnell"),
    variant_of="flux",
)

CONTROL = Architecture(
    name="flux_control",
    title="FLUX.1 Depth and Canny",
    build=lambda: build(replace(TRANSFORMER, in_channels=128)),
    pipeline=("FluxControlPipeline",),
    variant_of="flux",
)

FILL = Architecture(
    name="flux_fill",
    title="FLUX.1 Fill",
    build=lambda: build(replace(TRANSFORMER, in_channels=384)),
    modelspec=("Flux.1-fill-dev",),
    pipeline=("FluxFillPipeline",),
    variant_of="flux",
)
