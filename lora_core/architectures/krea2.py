"""Krea 2, a transformer with one stream, whose text comes from twelve layers of Qwen3-VL.

Canonical names are those of Krea's code and of ComfyUI (``blocks.0.attn.wq``); diffusers' are one to one, but for the
modulations, which are parameters of the blocks there. Sources of the sizes: a LoRA of all layers and the classes of
ComfyUI and diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..types import TEXT_ENCODER, Shape
from . import llm
from .spec import Architecture, Component, Location, Module, linear, transformer

# (our path, diffusers' path, shapes)
Rows = Iterator[tuple[str, str, Mapping[str, Shape]]]
# A norm's parameter in Krea's files and in diffusers.
NORM_NAMES = {"scale": ("weight",)}
# Modulations are parameters without a module of their own in diffusers.
TABLE = "scale_shift_table"


@dataclass(frozen=True, slots=True)
class BlockConfig:
    """Widths of a block: hidden size, feed-forward, keys and values, and the width of a head."""

    width: int
    mlp: int
    keys: int
    head: int = 128


BLOCK, LAYERS = BlockConfig(width=6144, mlp=16384, keys=1536), 28
TEXT_BLOCK, TEXT_BLOCKS = BlockConfig(width=2560, mlp=6912, keys=2560), 2
PATCH, TIME, TEXT_LAYERS = 64, 256, 12


def build() -> Component:
    """The denoiser component."""
    modules: dict[str, Module] = {}

    def add(rows: Rows, stem: str = "", theirs: str = "", block: str = "base") -> None:
        for path, name, shapes in rows:
            also = NORM_NAMES if "scale" in shapes else {}
            modules[stem + path] = Module(stem + path, shapes, theirs + name, block, also)

    add(_outside())
    for part in ("layerwise", "refiner"):
        for index in range(TEXT_BLOCKS):
            stem = f"{part}_blocks.{index}."
            add(_block(TEXT_BLOCK), f"txtfusion.{stem}", f"text_fusion.{stem}", f"{part}{index:02d}")
    for index in range(LAYERS):
        stem, theirs, block = f"blocks.{index}.", f"transformer_blocks.{index}.", f"block{index:02d}"
        add(_block(BLOCK), stem, theirs, block)
        add(_modulation(), stem, theirs, block)
    outs = {module.diffusers: path for path, module in modules.items() if path.endswith(".wo")}
    return transformer(
        modules,
        # Some programs leave out the ".0".
        aliases={name.removesuffix(".0"): Location(path) for name, path in outs.items()},
    )


def _outside() -> Rows:
    width, text = BLOCK.width, TEXT_BLOCK.width
    yield "first", "img_in", linear(width, PATCH)
    yield "tmlp.0", "time_embed.linear_1", linear(width, TIME)
    yield "tmlp.2", "time_embed.linear_2", linear(width, width)
    yield "tproj.1", "time_mod_proj", linear(6 * width, width)
    yield "txtfusion.projector", "text_fusion.projector", linear(1, TEXT_LAYERS, bias=False)
    yield "txtmlp.0", "txt_in.norm", {"scale": (text,)}
    yield "txtmlp.1", "txt_in.linear_1", linear(width, text)
    yield "txtmlp.3", "txt_in.linear_2", linear(width, width)
    yield "last.norm", "final_layer.norm", {"scale": (width,)}
    yield "last.linear", "final_layer.linear", linear(PATCH, width)
    yield "last.modulation", f"final_layer.{TABLE}", {"lin": (2, width)}


def _modulation() -> Rows:
    """Six shifts, scales and gates, one after the other."""
    yield "mod", TABLE, {"lin": (6 * BLOCK.width,)}


def _block(config: BlockConfig) -> Rows:
    """Modules of one block."""
    width = config.width
    yield "prenorm", "norm1", {"scale": (width,)}
    yield "postnorm", "norm2", {"scale": (width,)}
    yield "attn.wq", "attn.to_q", linear(width, width, bias=False)
    yield "attn.wk", "attn.to_k", linear(config.keys, width, bias=False)
    yield "attn.wv", "attn.to_v", linear(config.keys, width, bias=False)
    yield "attn.gate", "attn.to_gate", linear(width, width, bias=False)
    yield "attn.wo", "attn.to_out.0", linear(width, width, bias=False)
    yield "attn.qknorm.qnorm", "attn.norm_q", {"scale": (config.head,)}
    yield "attn.qknorm.knorm", "attn.norm_k", {"scale": (config.head,)}
    yield "mlp.gate", "ff.gate", linear(config.mlp, width, bias=False)
    yield "mlp.up", "ff.up", linear(config.mlp, width, bias=False)
    yield "mlp.down", "ff.down", linear(width, config.mlp, bias=False)


ARCHITECTURE = Architecture(
    name="krea2",
    title="Krea 2",
    build=lambda: (
        build(),
        llm.build(llm.QWEN3_4B, TEXT_ENCODER, "qwen3vl_4b", ("lora_te", "lora_te1"), stem="language_model."),
    ),
    base_versions=("krea2",),
    pipeline=("Krea2Pipeline",),
)
