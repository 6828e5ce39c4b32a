"""Transformers with joint blocks from widths and depth: Stable Diffusion 3 and 3.5.

Text and picture have weights of their own in each block (``context_block``, ``x_block``) and one attention over both.
After the last block the text is not used any more, so its context block has q, k and v alone. Canonical names are
Stability's. Diffusers has q, k and v apart, and (scale, shift) where the original has (shift, scale): in the last
norm, and in the norm of the last context block. OneTrainer's own format numbers the parts (``qkv.0``). Sources: the
published configurations, diffusers' and OneTrainer's converters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..types import Shape
from .spec import BASE_BLOCK, Component, Location, Module, conv, linear, rows_of, swapped, transformer

HEAD, TIME, PATCH = 64, 256, 2
FINAL_NORM = "final_layer.adaLN_modulation.1"
CONTEXT_NORM = "context_block.adaLN_modulation.1"
# Fused matrix of a block -> diffusers' names of its parts.
_FUSED = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_NAMES = {
    "pos_embed": "pos_embed.pos_embed",
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "x_block.adaLN_modulation.1": "norm1.linear",
    "x_block.attn.ln_q": "attn.norm_q",
    "x_block.attn.ln_k": "attn.norm_k",
    "x_block.attn.proj": "attn.to_out.0",
    "x_block.attn2.ln_q": "attn2.norm_q",
    "x_block.attn2.ln_k": "attn2.norm_k",
    "x_block.attn2.proj": "attn2.to_out.0",
    "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2",
    CONTEXT_NORM: "norm1_context.linear",
    "context_block.attn.ln_q": "attn.norm_added_q",
    "context_block.attn.ln_k": "attn.norm_added_k",
    "context_block.attn.proj": "attn.to_add_out",
    "context_block.mlp.fc1": "ff_context.net.0.proj",
    "context_block.mlp.fc2": "ff_context.net.2",
}


@dataclass(frozen=True, slots=True)
class JointConfig:
    """Widths and depth of a transformer with joint blocks.

    Args:
        layers: blocks; the width is 64 times that.
        positions: side of the table of positions, in patches.
        qk_norm: q and k are normed.
        dual: the first so many blocks have a second attention, over the picture alone.
        context, pooled: widths of the text condition.
        channels: of the latent.
    """

    layers: int
    positions: int = 192
    qk_norm: bool = False
    dual: int = 0
    context: int = 4096
    pooled: int = 2048
    channels: int = 16

    @property
    def width(self) -> int:
        """One head a layer."""
        return HEAD * self.layers


Rows = Iterator[tuple[str, Mapping[str, Shape]]]


def build(config: JointConfig) -> Component:
    """The denoiser component."""
    width = config.width
    modules: dict[str, Module] = {}
    aliases: dict[str, Location] = {"norm_out.linear": swapped(FINAL_NORM, width)}
    others: dict[str, Location] = {}

    def add(rows: Rows, stem: str = "", diffusers: str = "", block: str = BASE_BLOCK) -> None:
        for path, shapes in rows:
            name = _NAMES.get(path)
            modules[stem + path] = Module(stem + path, shapes, diffusers + name if name else "", block)
            if path in _FUSED:
                aliases.update(rows_of(stem + path, [diffusers + part for part in _FUSED[path]], [width] * 3))
                others.update(rows_of(stem + path, [f"{stem}{path}.{number}" for number in range(3)], [width] * 3))

    add(_outside(config))
    for index in range(config.layers):
        add(_block(config, index), f"joint_blocks.{index}.", f"transformer_blocks.{index}.", f"joint{index:02d}")
    last = modules[f"joint_blocks.{config.layers - 1}.{CONTEXT_NORM}"]
    aliases[last.diffusers] = swapped(last.path, width)
    modules[last.path] = Module(last.path, last.shapes, "", last.block)
    return transformer(
        modules,
        aliases=aliases,
        others=others,
    )


def _outside(config: JointConfig) -> Rows:
    """Modules outside blocks; the table of positions is a constant that checkpoints carry along."""
    width = config.width
    yield "pos_embed", {"": (1, config.positions**2, width)}
    yield "x_embedder.proj", conv(width, config.channels, PATCH)
    yield "context_embedder", linear(width, config.context)
    for name, into in (("t_embedder", TIME), ("y_embedder", config.pooled)):
        yield f"{name}.mlp.0", linear(width, into)
        yield f"{name}.mlp.2", linear(width, width)
    yield FINAL_NORM, linear(2 * width, width)
    yield "final_layer.linear", linear(config.channels * PATCH**2, width)


def _block(config: JointConfig, index: int) -> Rows:
    """Modules of one block."""
    width, last, dual = config.width, index == config.layers - 1, index < config.dual
    yield from _attention(config, "x_block.attn")
    if dual:
        yield from _attention(config, "x_block.attn2")
    yield "x_block.adaLN_modulation.1", linear((9 if dual else 6) * width, width)
    yield from _feed_forward(width, "x_block.mlp")
    yield from _attention(config, "context_block.attn", out=not last)
    yield CONTEXT_NORM, linear((2 if last else 6) * width, width)
    if not last:
        yield from _feed_forward(width, "context_block.mlp")


def _attention(config: JointConfig, stem: str, *, out: bool = True) -> Rows:
    yield f"{stem}.qkv", linear(3 * config.width, config.width)
    if config.qk_norm:
        yield f"{stem}.ln_q", {"weight": (HEAD,)}
        yield f"{stem}.ln_k", {"weight": (HEAD,)}
    if out:
        yield f"{stem}.proj", linear(config.width, config.width)


def _feed_forward(width: int, stem: str) -> Rows:
    yield f"{stem}.fc1", linear(4 * width, width)
    yield f"{stem}.fc2", linear(width, 4 * width)
