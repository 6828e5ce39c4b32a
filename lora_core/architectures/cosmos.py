"""Cosmos-Predict2 and Anima, which is its smaller model with an adapter for another text encoder.

Canonical names are NVIDIA's and ComfyUI's (``blocks.0.self_attn.q_proj``), without the ``net.`` of their files;
diffusers' are one to one. Anima's ``llm_adapter`` is a model of its own in diffusers (``text_conditioner``). Sources:
the published configurations, and for what diffusers calls the adapter its ``AnimaLoraLoaderMixin``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..types import TEXT_ENCODER, Shape
from . import llm, t5
from .spec import Architecture, Component, Location, Module, linear, transformer

TEXT_WIDTH, HEAD, MODULATION = 1024, 128, 256
ADAPTER = "llm_adapter"


@dataclass(frozen=True, slots=True)
class CosmosConfig:
    """Widths and depth.

    Args:
        width: hidden size.
        layers: blocks.
        in_channels: latent channels and the padding mask; Video2World also gets a mask of the given frames.
        adapter: blocks of Anima's adapter; 0 for none.
    """

    width: int
    layers: int
    in_channels: int = 17
    adapter: int = 0


# (our path, diffusers' path, shapes)
Rows = Iterator[tuple[str, str, Mapping[str, Shape]]]


def build(config: CosmosConfig) -> Component:
    """The denoiser component."""
    modules = {path: Module(path, shapes, name) for path, name, shapes in _outside(config)}
    for index in range(config.layers):
        stem, theirs, block = f"blocks.{index}", f"transformer_blocks.{index}", f"block{index:02d}"
        for path, name, shapes in _block(config.width):
            modules[f"{stem}.{path}"] = Module(f"{stem}.{path}", shapes, f"{theirs}.{name}", block)
    adapter = dict(_adapter(config.adapter)) if config.adapter else {}
    for path, shapes in adapter.items():
        modules[f"{ADAPTER}.{path}"] = Module(f"{ADAPTER}.{path}", shapes, "")
    return transformer(
        modules,
        others={f"text_conditioner.{path}": Location(f"{ADAPTER}.{path}") for path in adapter},
    )


def _outside(config: CosmosConfig) -> Rows:
    width = config.width
    yield "x_embedder.proj.1", "patch_embed.proj", linear(width, 4 * config.in_channels, bias=False)
    yield "t_embedder.1.linear_1", "time_embed.t_embedder.linear_1", linear(width, width, bias=False)
    yield "t_embedder.1.linear_2", "time_embed.t_embedder.linear_2", linear(3 * width, width, bias=False)
    yield "t_embedding_norm", "time_embed.norm", {"weight": (width,)}
    yield "final_layer.linear", "proj_out", linear(64, width, bias=False)
    yield "final_layer.adaln_modulation.1", "norm_out.linear_1", linear(MODULATION, width, bias=False)
    yield "final_layer.adaln_modulation.2", "norm_out.linear_2", linear(2 * width, MODULATION, bias=False)


def _block(width: int) -> Rows:
    """Modules of one block."""
    for number, (part, context) in enumerate((("self_attn", width), ("cross_attn", TEXT_WIDTH)), start=1):
        theirs = f"attn{number}"
        yield f"{part}.q_proj", f"{theirs}.to_q", linear(width, width, bias=False)
        yield f"{part}.k_proj", f"{theirs}.to_k", linear(width, context, bias=False)
        yield f"{part}.v_proj", f"{theirs}.to_v", linear(width, context, bias=False)
        yield f"{part}.output_proj", f"{theirs}.to_out.0", linear(width, width, bias=False)
        yield f"{part}.q_norm", f"{theirs}.norm_q", {"weight": (HEAD,)}
        yield f"{part}.k_norm", f"{theirs}.norm_k", {"weight": (HEAD,)}
    yield "mlp.layer1", "ff.net.0.proj", linear(4 * width, width, bias=False)
    yield "mlp.layer2", "ff.net.2", linear(width, 4 * width, bias=False)
    for number, part in enumerate(("self_attn", "cross_attn", "mlp"), start=1):
        stem, theirs = f"adaln_modulation_{part}", f"norm{number}"
        yield f"{stem}.1", f"{theirs}.linear_1", linear(MODULATION, width, bias=False)
        yield f"{stem}.2", f"{theirs}.linear_2", linear(3 * width, MODULATION, bias=False)


def _adapter(layers: int) -> Iterator[tuple[str, Mapping[str, Shape]]]:
    """Anima's way from Qwen3's states and T5's tokens to Cosmos' text condition."""
    width, head = TEXT_WIDTH, 64
    yield "embed", {"weight": (t5.T5_XXL.vocabulary, width)}
    for index in range(layers):
        stem = f"blocks.{index}"
        for part in ("self_attn", "cross_attn"):
            for name in "qkvo":
                yield f"{stem}.{part}.{name}_proj", linear(width, width, bias=False)
            for name in "qk":
                yield f"{stem}.{part}.{name}_norm", {"weight": (head,)}
        for part in ("self_attn", "cross_attn", "mlp"):
            yield f"{stem}.norm_{part}", {"weight": (width,)}
        yield f"{stem}.mlp.0", linear(4 * width, width)
        yield f"{stem}.mlp.2", linear(width, 4 * width)
    yield "out_proj", linear(width, width)
    yield "norm", {"weight": (width,)}


def _with_t5(config: CosmosConfig) -> tuple[Component, ...]:
    return build(config), t5.build(t5.T5_11B, TEXT_ENCODER, ("lora_te", "lora_te1"))


ANIMA = Architecture(
    name="anima",
    title="Anima",
    build=lambda: (
        build(CosmosConfig(width=2048, layers=28, adapter=6)),
        llm.build(llm.QWEN3_06B, TEXT_ENCODER, "qwen3_06b", ("lora_te", "lora_te1")),
    ),
    modelspec=("anima-preview", "anima"),
    base_versions=("anima",),
    pipeline=("AnimaModularPipeline",),
)
PREDICT2_2B = Architecture(
    name="cosmos_predict2_2b",
    title="Cosmos-Predict2 2B",
    build=lambda: _with_t5(CosmosConfig(width=2048, layers=28)),
    pipeline=("Cosmos2TextToImagePipeline", "Cosmos2VideoToWorldPipeline"),
)
PREDICT2_2B_VIDEO = Architecture(
    name="cosmos_predict2_2b_video2world",
    title="Cosmos-Predict2 2B Video2World",
    build=lambda: _with_t5(CosmosConfig(width=2048, layers=28, in_channels=18)),
    variant_of="cosmos_predict2_2b",
)
PREDICT2_14B = Architecture(
    name="cosmos_predict2_14b",
    title="Cosmos-Predict2 14B",
    build=lambda: _with_t5(CosmosConfig(width=5120, layers=36)),
    pipeline=("Cosmos2TextToImagePipeline", "Cosmos2VideoToWorldPipeline"),
)
PREDICT2_14B_VIDEO = Architecture(
    name="cosmos_predict2_14b_video2world",
    title="Cosmos-Predict2 14B Video2World",
    build=lambda: _with_t5(CosmosConfig(width=5120, layers=36, in_channels=18)),
    variant_of="cosmos_predict2_14b",
)
