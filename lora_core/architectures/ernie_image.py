"""ERNIE-Image. Source of names and sizes: diffusers' and ComfyUI's classes, which agree."""

from __future__ import annotations

from ..types import TEXT_ENCODER
from . import llm, plain
from .spec import Architecture, linear

WIDTH, MLP, HEAD, LATENT, TEXT, LAYERS = 4096, 12288, 128, 128, 3072, 36


def _outside() -> plain.Rows:
    yield "x_embedder.proj", {"weight": (WIDTH, LATENT, 1, 1), "bias": (WIDTH,)}
    yield "text_proj", linear(WIDTH, TEXT, bias=False)
    yield "time_embedding.linear_1", linear(WIDTH, WIDTH)
    yield "time_embedding.linear_2", linear(WIDTH, WIDTH)
    yield "adaLN_modulation.1", linear(6 * WIDTH, WIDTH)
    yield "final_norm.linear", linear(2 * WIDTH, WIDTH)
    yield "final_linear", linear(LATENT, WIDTH)


def _block() -> plain.Rows:
    for norm in ("adaLN_sa_ln", "adaLN_mlp_ln"):
        yield norm, {"weight": (WIDTH,)}
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        yield f"self_attention.{name}", linear(WIDTH, WIDTH, bias=False)
    for name in ("norm_q", "norm_k"):
        yield f"self_attention.{name}", {"weight": (HEAD,)}
    for name in ("gate_proj", "up_proj"):
        yield f"mlp.{name}", linear(MLP, WIDTH, bias=False)
    yield "mlp.linear_fc2", linear(WIDTH, MLP, bias=False)


MINISTRAL3_3B = llm.LlmConfig(width=TEXT, layers=26, mlp=9216, heads=32, kv_heads=8, vocabulary=131072)
ARCHITECTURE = Architecture(
    name="ernie_image",
    title="ERNIE-Image",
    build=lambda: (
        plain.build(_outside(), _block(), "layers", LAYERS),
        llm.build(MINISTRAL3_3B, TEXT_ENCODER, "ministral3_3b", ("lora_te", "lora_te1"), stem="language_model."),
    ),
    pipeline=("ErnieImagePipeline",),
)
