"""Transformers with double and single streams from widths and depths: Flux, Flux 2 and Chroma.

A double block has a stream for the picture and one for the text, each with its own weights; in single blocks both go
through one, and q, k, v and the feed-forward's way in are one matrix (``linear1``), the attention's and the
feed-forward's way out another (``linear2``). Canonical names are Black Forest Labs' (``double_blocks.0.img_attn.qkv``).
Diffusers has q, k and v apart, and the last norm's shift and scale the other way round. OneTrainer's own format numbers
the parts (``qkv.0``, ``linear1.3``). Sources: the published configurations, diffusers' and OneTrainer's converters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ..types import Shape
from .spec import BASE_BLOCK, Component, Location, Module, linear, rows_of, swapped, transformer

HEAD, TIME = 128, 256
FINAL_NORM = "final_layer.adaLN_modulation.1"
# The norms' parameter in Black Forest Labs' files, and in diffusers and newer versions of ComfyUI.
NORM_NAMES = {"scale": ("weight",)}
# Fused matrix -> diffusers' names of its parts.
_FUSED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}

_REARRANGED = (*_FUSED, FINAL_NORM)

_ATTENTION_NAMES = {
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "txt_attn.proj": "attn.to_add_out",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}
_OUTSIDE_NAMES = {"img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out"}
FLUX_NAMES = {
    **_ATTENTION_NAMES,
    **_OUTSIDE_NAMES,
    "img_mod.lin": "norm1.linear",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mod.lin": "norm1_context.linear",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
    "modulation.lin": "norm.linear",
    "linear2": "proj_out",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
}
FLUX2_NAMES = {
    **_ATTENTION_NAMES,
    **_OUTSIDE_NAMES,
    "img_mlp.0": "ff.linear_in",
    "img_mlp.2": "ff.linear_out",
    "txt_mlp.0": "ff_context.linear_in",
    "txt_mlp.2": "ff_context.linear_out",
    "linear1": "attn.to_qkv_mlp_proj",
    "linear2": "attn.to_out",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
}


@dataclass(frozen=True, slots=True)
class StreamsConfig:
    """Widths and depths of a transformer with double and single streams.

    Args:
        width: hidden size.
        double, single: blocks of each kind.
        context: width of the text condition.
        names: our path in a block, or outside blocks -> diffusers'.
        pooled: width of the pooled text condition, 0 where there is none.
        in_channels, out_channels: numbers of a patch of the latent; control models get a second picture.
        guidance: the strength of guidance is an input (distilled models).
        mlp: width inside the feed-forward, in units of ``width``.
        gated: the feed-forward's way in has a second half that gates the first.
        bias: linear layers have one.
        modulation: ``block``, each block makes its own shifts and scales; ``shared``, all have the same (Flux 2);
            ``approximated``, another network makes them and blocks have no weights for it (Chroma).
        approximator: width and layers of that network.
    """

    width: int
    double: int
    single: int
    context: int
    names: Mapping[str, str]
    pooled: int = 0
    in_channels: int = 64
    out_channels: int = 64
    guidance: bool = False
    mlp: int = 4
    gated: bool = False
    bias: bool = True
    modulation: Literal["block", "shared", "approximated"] = "block"
    approximator: tuple[int, int] = (0, 0)


Rows = Iterator[tuple[str, Mapping[str, Shape]]]


def build(config: StreamsConfig) -> Component:
    """The denoiser component."""
    modules: dict[str, Module] = {}
    aliases: dict[str, Location] = {}
    others: dict[str, Location] = {"img_in.proj": Location("img_in")}

    def add(rows: Rows, stem: str = "", diffusers: str = "", block: str = BASE_BLOCK) -> None:
        for path, shapes in rows:
            name = config.names.get(path, "" if path in _REARRANGED else path)
            name = name and diffusers + name
            also = NORM_NAMES if "scale" in shapes else {}
            modules[stem + path] = Module(stem + path, shapes, name, block, also)
            if path in _FUSED:
                parts = _parts(config, path)
                numbered = [f"{stem}{path}.{number}" for number in range(len(parts))]
                others.update(rows_of(stem + path, numbered, list(parts.values())))
                if not name:
                    aliases.update(rows_of(stem + path, [diffusers + part for part in parts], list(parts.values())))

    add(_outside(config))
    for index in range(config.double):
        add(_double(config), f"double_blocks.{index}.", f"transformer_blocks.{index}.", f"double{index:02d}")
    for index in range(config.single):
        add(_single(config), f"single_blocks.{index}.", f"single_transformer_blocks.{index}.", f"single{index:02d}")
    if FINAL_NORM in modules:
        aliases["norm_out.linear"] = swapped(FINAL_NORM, config.width)
    return transformer(
        modules,
        aliases=aliases,
        others=others,
    )


def _parts(config: StreamsConfig, path: str) -> dict[str, int]:
    """Diffusers' names of a fused matrix's parts -> rows."""
    names, widths = _FUSED[path], [config.width] * 3
    return dict(zip(names, [*widths, _way_in(config)], strict=False))


def _way_in(config: StreamsConfig) -> int:
    """Rows of the feed-forward's first matrix."""
    return config.width * config.mlp * (2 if config.gated else 1)


def _outside(config: StreamsConfig) -> Rows:
    """Modules outside blocks."""
    width, bias = config.width, config.bias
    yield "img_in", linear(width, config.in_channels, bias)
    yield "txt_in", linear(width, config.context, bias)
    embedded = {"time_in": TIME, "vector_in": config.pooled, "guidance_in": TIME if config.guidance else 0}
    if config.modulation != "approximated":
        for name, into in embedded.items():
            if into:
                yield f"{name}.in_layer", linear(width, into, bias)
                yield f"{name}.out_layer", linear(width, width, bias)
        yield FINAL_NORM, linear(2 * width, width, bias)
    else:
        yield from _approximator(*config.approximator, width)
    if config.modulation == "shared":
        yield "double_stream_modulation_img.lin", linear(6 * width, width, bias)
        yield "double_stream_modulation_txt.lin", linear(6 * width, width, bias)
        yield "single_stream_modulation.lin", linear(3 * width, width, bias)
    yield "final_layer.linear", linear(config.out_channels, width, bias)


def _approximator(width: int, layers: int, out: int) -> Rows:
    """Chroma's network that makes all shifts and scales."""
    stem = "distilled_guidance_layer"
    yield f"{stem}.in_proj", linear(width, 64)
    for index in range(layers):
        yield f"{stem}.layers.{index}.in_layer", linear(width, width)
        yield f"{stem}.layers.{index}.out_layer", linear(width, width)
        yield f"{stem}.norms.{index}", {"scale": (width,)}
    yield f"{stem}.out_proj", linear(out, width)


def _double(config: StreamsConfig) -> Rows:
    """Modules of a double block."""
    width, bias = config.width, config.bias
    for stream in ("img", "txt"):
        if config.modulation == "block":
            yield f"{stream}_mod.lin", linear(6 * width, width, bias)
        yield f"{stream}_attn.qkv", linear(3 * width, width, bias)
        yield f"{stream}_attn.norm.query_norm", {"scale": (HEAD,)}
        yield f"{stream}_attn.norm.key_norm", {"scale": (HEAD,)}
        yield f"{stream}_attn.proj", linear(width, width, bias)
        yield f"{stream}_mlp.0", linear(_way_in(config), width, bias)
        yield f"{stream}_mlp.2", linear(width, width * config.mlp, bias)


def _single(config: StreamsConfig) -> Rows:
    """Modules of a single block."""
    width, bias = config.width, config.bias
    if config.modulation == "block":
        yield "modulation.lin", linear(3 * width, width, bias)
    yield "linear1", linear(3 * width + _way_in(config), width, bias)
    yield "linear2", linear(width, width * (1 + config.mlp), bias)
    yield "norm.query_norm", {"scale": (HEAD,)}
    yield "norm.key_norm", {"scale": (HEAD,)}
