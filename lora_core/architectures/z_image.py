"""Z-Image and Z-Image-Turbo. Source: Tongyi-MAI's published transformer configuration and ComfyUI's key map.

Both have one architecture, so that LoRAs of one fit the other. Turbo is distilled: what was trained on it without its
training adapter is a matter of taste, not of shapes.
"""

from __future__ import annotations

from ..types import TEXT_ENCODER
from . import llm, nextdit
from .spec import Architecture

TRANSFORMER = nextdit.NextDiTConfig(
    width=3840,
    layers=30,
    heads=30,
    kv_heads=30,
    mlp=10240,
    text_width=2560,
    time_width=256,
    modulation="adaLN_modulation.0",
    attention="attention",
    names={
        "x_embedder": "all_x_embedder.2-1",
        "final_layer.linear": "all_final_layer.2-1.linear",
        "final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.1",
    },
    block_names={
        "attention.out": "attention.to_out.0",
        "attention.q_norm": "attention.norm_q",
        "attention.k_norm": "attention.norm_k",
    },
    pad_tokens=True,
)

ARCHITECTURE = Architecture(
    name="z_image",
    title="Z-Image",
    build=lambda: (
        nextdit.build(TRANSFORMER),
        llm.build(llm.QWEN3_4B, TEXT_ENCODER, "qwen3_4b", kohya_prefixes=("lora_te", "lora_te1")),
    ),
    modelspec=("Z-Image", "z-image", "z-image-turbo", "z_image", "zimage"),
    base_versions=("zimage", "z_image", "Z-Image"),
    pipeline=("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline", "ZImageOmniPipeline"),
)
