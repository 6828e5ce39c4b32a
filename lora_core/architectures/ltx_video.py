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


def attention(path: str, query: int, context: int, inner: int) -> plain.Rows:
    """An attention between ``query`` and ``context`` wide streams, ``inner`` wide in all heads."""
    yield f"{path}.to_q", linear(inner, query)
    for name in ("to_k", "to_v"):
        yield f"{path}.{name}", linear(inner, context)
    yield f"{path}.to_out.0", linear(query, inner)
    for name in ("q_norm", "k_norm"):
        yield f"{path}.{name}", {"weight": (inner,)}


def feed_forward(path: str, width: int) -> plain.Rows:
    """The feed-forward of a block."""
    yield f"{path}.net.0.proj", linear(4 * width, width)
    yield f"{path}.net.2", linear(width, 4 * width)


def modulation(path: str, width: int, parts: int) -> plain.Rows:
    """The embedding of the time and what it makes of it, ``parts`` vectors."""
    yield f"{path}.emb.timestep_embedder.linear_1", linear(width, 256)
    yield f"{path}.emb.timestep_embedder.linear_2", linear(width, width)
    yield f"{path}.linear", linear(parts * width, width)


def _outside(width: int) -> plain.Rows:
    yield "patchify_proj", linear(width, LATENT)
    yield from modulation("adaln_single", width, 6)
    yield "caption_projection.linear_1", linear(width, TEXT)
    yield "caption_projection.linear_2", linear(width, width)
    yield "scale_shift_table", {"": (2, width)}
    yield "proj_out", linear(LATENT, width)


def _block(width: int) -> plain.Rows:
    yield "", {"scale_shift_table": (6, width)}
    for path in ("attn1", "attn2"):
        yield from attention(path, width, width, width)
    yield from feed_forward("ff", width)


def _build(width: int, layers: int) -> tuple[Component, ...]:
    return (
        plain.build(_outside(width), _block(width), "transformer_blocks", layers, names=NAMES),
        t5.build(t5.T5_XXL, TEXT_ENCODER, ("lora_te", "lora_te1"), "t5xxl"),
    )


PIPELINES = ("LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline")
ARCHITECTURE = Architecture("ltx_video", "LTX-Video", lambda: _build(2048, 28), pipeline=PIPELINES)
LTX_13B = Architecture("ltx_video_13b", "LTX-Video 13B", lambda: _build(4096, 48))
