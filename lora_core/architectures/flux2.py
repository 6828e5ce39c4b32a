"""FLUX.2 dev and the klein models. Source: Black Forest Labs' configurations, ComfyUI's model detection.

All blocks share their shifts and scales, and nothing has a bias. The three have different widths, so none takes
another's LoRAs. The text encoders are language models: Mistral 3 of dev, Qwen 3 of klein.
"""

from __future__ import annotations

from dataclasses import replace

from ..types import TEXT_ENCODER
from . import llm, streams
from .spec import Architecture, Component

DEV = streams.StreamsConfig(
    width=6144,
    double=8,
    single=48,
    context=15360,
    names=streams.FLUX2_NAMES,
    in_channels=128,
    out_channels=128,
    guidance=True,
    mlp=3,
    gated=True,
    bias=False,
    modulation="shared",
)
KLEIN_4B = replace(DEV, width=3072, double=5, single=20, context=7680, guidance=False)
KLEIN_9B = replace(DEV, width=4096, double=8, single=24, context=12288, guidance=False)


def _build(transformer: streams.StreamsConfig, text: llm.LlmConfig, encoder: str) -> tuple[Component, ...]:
    return (
        streams.build(transformer),
        llm.build(text, TEXT_ENCODER, encoder, kohya_prefixes=("lora_te", "lora_te1")),
    )


ARCHITECTURE = Architecture(
    name="flux2",
    title="FLUX.2 dev",
    build=lambda: _build(DEV, llm.MISTRAL3_24B, "mistral3_24b"),
    modelspec=("Flux.2-dev", "Flux.2", "flux-2-dev"),
    base_versions=("flux_2_dev", "flux2"),
    pipeline=("Flux2Pipeline",),
)

FLUX2_KLEIN_4B = Architecture(
    name="flux2_klein_4b",
    title="FLUX.2 klein 4B",
    build=lambda: _build(KLEIN_4B, llm.QWEN3_4B, "qwen3_4b"),
    modelspec=("Flux.2-klein-4b", "flux-2-klein-4b"),
    base_versions=("flux_2_klein_4b", "flux2_klein_4b"),
    pipeline=("Flux2KleinPipeline",),
)

FLUX2_KLEIN_9B = Architecture(
    name="flux2_klein_9b",
    title="FLUX.2 klein 9B",
    build=lambda: _build(KLEIN_9B, llm.QWEN3_8B, "qwen3_8b"),
    modelspec=("Flux.2-klein-9b", "flux-2-klein-9b"),
    base_versions=("flux_2_klein_9b", "flux2_klein_9b"),
    pipeline=("Flux2KleinPipeline",),
)
