"""NextDiT, the transformer of Lumina 2 and Z-Image, from widths and depth.

Canonical names are those of the original code and of ComfyUI (``layers.0.attention.qkv``, one matrix for q, k and v).
The two families differ in sizes, in the place of the modulation's linear layer (after an activation in Lumina 2, so
``adaLN_modulation.1``), in tokens that fill up sequences (Z-Image), and in diffusers' names, which are data here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..types import Shape, Slice
from .spec import Component, Location, Module, linear, transformer

# Diffusers splits qkv; the order of the rows is its converters' for both families.
QKV = "attention.qkv"
OUT = "attention.out"
PROJECTIONS = ("to_q", "to_k", "to_v")
FUSED = "to_qkv"  # diffusers' own fused name, after fuse_qkv_projections


@dataclass(frozen=True, slots=True)
class NextDiTConfig:
    """Widths and depth, and diffusers' names.

    Args:
        width: hidden size.
        layers: blocks after the refiners; there are two refiner blocks for the noise and two for the text.
        heads, kv_heads: attention heads of the queries, and of the keys and values.
        mlp: width inside the feed-forward.
        text_width: width of the text condition.
        time_width: width of the time condition that the modulation layers read.
        modulation: place of the modulation's linear layer in a block.
        pad_tokens: learned tokens that fill up picture and text.
        attention: diffusers' name of the attention in a block.
        names: canonical path -> diffusers path for modules outside blocks.
        block_names: the same inside a block, without its number.
        text_names: the same for what a block of the text refiner has otherwise.
        patch: numbers in a patch of the latent picture, 2 by 2 with 16 channels.
        time_hidden: width inside the embedding of the time.
        refiners: blocks of each refiner.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    text_width: int
    time_width: int
    modulation: str
    attention: str
    names: Mapping[str, str]
    block_names: Mapping[str, str]
    text_names: Mapping[str, str] = field(default_factory=dict[str, str])
    pad_tokens: bool = False
    patch: int = 64
    time_hidden: int = 1024
    refiners: int = 2

    @property
    def qkv(self) -> tuple[int, int, int]:
        """Rows of q, k and v in the fused matrix."""
        head = self.width // self.heads
        return (self.heads * head, self.kv_heads * head, self.kv_heads * head)


def build(config: NextDiTConfig) -> Component:
    """The denoiser component."""
    modules: dict[str, Module] = {}
    aliases: dict[str, Location] = {}
    for path, shapes in _outside(config):
        modules[path] = Module(path, shapes, config.names.get(path, path))
    stacks = {"noise_refiner": config.refiners, "context_refiner": config.refiners, "layers": config.layers}
    for stack, count in stacks.items():
        names = {**config.block_names, **(config.text_names if stack == "context_refiner" else {})}
        for index in range(count):
            stem = f"{stack}.{index}"
            block = f"layer{index:02d}" if stack == "layers" else f"{stack.partition('_')[0]}{index:02d}"
            for path, shapes in _block(config, modulated=stack != "context_refiner"):
                diffusers = "" if path == QKV else f"{stem}.{names.get(path, path)}"
                modules[f"{stem}.{path}"] = Module(f"{stem}.{path}", shapes, diffusers, block)
            for name, rows in _split(config):
                aliases[f"{stem}.{config.attention}.{name}"] = Location(f"{stem}.{QKV}", rows)
            # Files exist that mix both families of names.
            aliases |= {path: Location(path) for path in (f"{stem}.{QKV}", f"{stem}.{OUT}")}
    return transformer(
        modules,
        aliases=aliases,
    )


def _split(config: NextDiTConfig) -> Iterator[tuple[str, Slice | None]]:
    """Diffusers' names of parts of the fused matrix, and of the whole."""
    start = 0
    for name, length in zip(PROJECTIONS, config.qkv, strict=True):
        yield name, Slice(0, start, length)
        start += length
    yield FUSED, None


def _outside(config: NextDiTConfig) -> Iterator[tuple[str, Mapping[str, Shape]]]:
    """Modules outside blocks."""
    width, time = config.width, config.time_width
    if config.pad_tokens:
        yield "x_pad_token", {"": (1, width)}
        yield "cap_pad_token", {"": (1, width)}
    yield "x_embedder", linear(width, config.patch)
    yield "t_embedder.mlp.0", linear(config.time_hidden, 256)
    yield "t_embedder.mlp.2", linear(time, config.time_hidden)
    yield "cap_embedder.0", {"weight": (config.text_width,)}
    yield "cap_embedder.1", linear(width, config.text_width)
    yield "final_layer.linear", linear(config.patch, width)
    yield "final_layer.adaLN_modulation.1", linear(width, time)


def _block(config: NextDiTConfig, *, modulated: bool) -> Iterator[tuple[str, Mapping[str, Shape]]]:
    """Modules of one block; the text refiner has no modulation."""
    width, head = config.width, config.width // config.heads
    yield QKV, linear(sum(config.qkv), width, bias=False)
    yield OUT, linear(width, width, bias=False)
    yield "attention.q_norm", {"weight": (head,)}
    yield "attention.k_norm", {"weight": (head,)}
    yield "feed_forward.w1", linear(config.mlp, width, bias=False)
    yield "feed_forward.w2", linear(width, config.mlp, bias=False)
    yield "feed_forward.w3", linear(config.mlp, width, bias=False)
    for norm in ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"):
        yield norm, {"weight": (width,)}
    if modulated:
        yield config.modulation, linear(4 * width, config.time_width)
