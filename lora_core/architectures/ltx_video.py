"""LTX-Video, 2B and 13B. Source of names and sizes: Lightricks' checkpoints as diffusers converts them, and ComfyUI."""

from __future__ import annotations

from ..types import TEXT_ENCODER
from . import plain, t5
from .spec import Architecture, Component, linear

LATENT, TEXT = 128, 4096
NAMES = {
    "patchify_proj": "proj_in",
    "adaln_single.linear": "time_embed.linear",
    **{
        f"adaln_single.emb.timestep_embedder.linear_{n}": f"time_embed.emb.timestep_embedder.linear_{n}" for n in (1, 2)
    },
    **{f"{attention}.{name}_norm": f"{attention}.norm_{name}" for attention in ("attn1", "attn2") for name in "qk"},
}


def _outside(width: int) -> plain.Rows:
    yield "patchify_proj", linear(width, LATENT)
    yield "adaln_single.emb.timestep_embedder.linear_1", linear(width, 256)
    yield "adaln_single.emb.timestep_embedder.linear_2", linear(width, width)
    yield "adaln_single.linear", linear(6 * width, width)
    yield "caption_projection.linear_1", linear(width, TEXT)
    yield "caption_projection.linear_2", linear(width, width)
    yield "scale_shift_table", {"": (2, width)}
    yield "proj_out", linear(LATENT, width)


def _block(width: int) -> plain.Rows:
    yield "", {"scale_shift_table": (6, width)}
    for attention in ("attn1", "attn2"):
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            yield f"{attention}.{name}", linear(width, width)
        for name in ("q_norm", "k_norm"):
            yield f"{attention}.{name}", {"weight": (width,)}
    yield "ff.net.0.proj", linear(4 * width, width)
    yield "ff.net.2", linear(width, 4 * width)


def _build(width: int, layers: int) -> tuple[Component, ...]:
    return (
        plain.build(_outside(width), _block(width), "transformer_blocks", layers, names=NAMES),
        t5.build(t5.T5_XXL, TEXT_ENCODER, ("lora_te", "lora_te1"), "t5xxl"),
    )


PIPELINES = ("LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline")
ARCHITECTURE = Architecture("ltx_video", "LTX-Video", lambda: _build(2048, 28), pipeline=PIPELINES)
LTX_13B = Architecture("ltx_video_13b", "LTX-Video 13B", lambda: _build(4096, 48))
