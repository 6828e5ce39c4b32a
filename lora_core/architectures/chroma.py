"""Chroma: FLUX.1 schnell with a network in place of each block's shifts and scales. Source: lodestones' configuration.

The text encoder is T5-XXL alone. A FLUX.1 LoRA fits its blocks by name and shape but for the modulation.
"""

from __future__ import annotations

from ..types import TEXT_ENCODER
from . import streams, t5
from .spec import Architecture

_LAYER = "distilled_guidance_layer.layers"
LAYERS = 5
NAMES = {
    **streams.FLUX_NAMES,
    **{f"{_LAYER}.{index}.in_layer": f"{_LAYER}.{index}.linear_1" for index in range(LAYERS)},
    **{f"{_LAYER}.{index}.out_layer": f"{_LAYER}.{index}.linear_2" for index in range(LAYERS)},
}
TRANSFORMER = streams.StreamsConfig(
    width=3072,
    double=19,
    single=38,
    context=4096,
    names=NAMES,
    modulation="approximated",
    approximator=(5120, LAYERS),
)

ARCHITECTURE = Architecture(
    name="chroma",
    title="Chroma",
    build=lambda: (streams.build(TRANSFORMER), t5.build(t5.T5_XXL, TEXT_ENCODER, ("lora_te", "lora_te3", "lora_te1"))),
    modelspec=("chroma", "Chroma1"),
    base_versions=("chroma",),
    pipeline=("ChromaPipeline", "ChromaImg2ImgPipeline"),
    # The same blocks with the same shapes: a LoRA does not show which of the two it is for, and fits both.
    variant_of="flux",
)
