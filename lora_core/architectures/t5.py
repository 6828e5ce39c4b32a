"""T5 text encoders from widths and depth: T5-XXL v1.1 (Flux, SD3), UMT5-XXL (Wan), the first T5 (Cosmos).

Names: transformers' ``T5EncoderModel`` (``encoder.block.0.layer.0.SelfAttention.q``), which ComfyUI and all-in-one
checkpoints keep. Layer 0 of a block is the attention, layer 1 the feed-forward. Sizes: the published ``config.json``
of google/t5-v1_1-xxl, google/umt5-xxl and google-t5/t5-11b.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..types import Shape
from .spec import Component, Location, Module, linear

BUCKETS = 32


@dataclass(frozen=True, slots=True)
class T5Config:
    """Widths and depth of a T5 encoder; the defaults are T5-XXL's.

    Args:
        width: hidden size.
        inner: width of q, k and v over all heads.
        feed_forward: width inside the feed-forward.
        heads: attention heads.
        layers: blocks.
        vocabulary: rows of the token embedding.
        gated: two matrices go into the feed-forward (``wi_0``, ``wi_1``), not one (``wi``).
        bias_in_every_block: each block has its own table of relative positions (UMT5), not only the first.
    """

    width: int = 4096
    inner: int = 4096
    feed_forward: int = 10240
    heads: int = 64
    layers: int = 24
    vocabulary: int = 32128
    gated: bool = True
    bias_in_every_block: bool = False


T5_XXL = T5Config()
UMT5_XXL = T5Config(vocabulary=256384, bias_in_every_block=True)
T5_11B = T5Config(width=1024, inner=16384, feed_forward=65536, heads=128, gated=False)


def build(
    config: T5Config,
    component: str,
    kohya_prefixes: tuple[str, ...],
    encoder: str = "t5xxl",
    checkpoint_prefix: str = "",
) -> Component:
    """A text-encoder component; ``component`` is also its folder in a diffusers pipeline.

    Args:
        checkpoint_prefix: "" for that of all-in-one checkpoints, which follows from ``encoder``.
    """
    shapes: dict[str, Mapping[str, Shape]] = {"shared": {"weight": (config.vocabulary, config.width)}}
    for index in range(config.layers):
        attention, feed = f"encoder.block.{index}.layer.0", f"encoder.block.{index}.layer.1"
        for name in ("q", "k", "v"):
            shapes[f"{attention}.SelfAttention.{name}"] = linear(config.inner, config.width, bias=False)
        shapes[f"{attention}.SelfAttention.o"] = linear(config.width, config.inner, bias=False)
        if index == 0 or config.bias_in_every_block:
            shapes[f"{attention}.SelfAttention.relative_attention_bias"] = {"weight": (BUCKETS, config.heads)}
        shapes[f"{attention}.layer_norm"] = {"weight": (config.width,)}
        for name in ("wi_0", "wi_1") if config.gated else ("wi",):
            shapes[f"{feed}.DenseReluDense.{name}"] = linear(config.feed_forward, config.width, bias=False)
        shapes[f"{feed}.DenseReluDense.wo"] = linear(config.width, config.feed_forward, bias=False)
        shapes[f"{feed}.layer_norm"] = {"weight": (config.width,)}
    shapes["encoder.final_layer_norm"] = {"weight": (config.width,)}
    return Component(
        name=component,
        modules={path: Module(path, parameters, path) for path, parameters in shapes.items()},
        checkpoint_prefix=checkpoint_prefix or f"text_encoders.{encoder}.transformer.",
        kohya_prefixes=kohya_prefixes,
        diffusers_prefix=component,
        encoder=encoder,
        # transformers keeps the embedding a second time, tied to the first.
        aliases={"encoder.embed_tokens": Location("shared")},
    )
