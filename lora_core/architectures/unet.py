"""The UNets of Stable Diffusion 1, 2 and XL from block counts and widths.

Names: the LDM/SGM checkpoints' (``input_blocks.1.1.proj_in``) are canonical; diffusers'
(``down_blocks.0.attentions.0.proj_in``) are one to one. Source of the structure: the published model
configurations, checked in tests against inventories of real checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..types import DENOISER, Shape
from .spec import BASE_BLOCK, Component, Location, Module, conv, linear, norm


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """Widths and depths of a UNet.

    Args:
        model_channels: width of the first level.
        channel_mult: width of each level in units of ``model_channels``.
        depth: transformer blocks per attention of each level; 0 where a level has none.
        middle_depth: transformer blocks in the middle; None where it is one residual block alone.
        context_dim: width of the text condition.
        res_blocks: residual blocks per level on the way down (one more on the way up).
        linear_projection: proj_in and proj_out are linear layers, not 1x1 convolutions.
        label_dim: width of the pooled condition, or None.
        in_channels, out_channels: latent channels.
        up_depth: transformer blocks of each attention on the way up, deepest level first, where they are not the
            same as on the way down.
    """

    model_channels: int
    channel_mult: tuple[int, ...]
    depth: tuple[int, ...]
    middle_depth: int | None
    context_dim: int
    res_blocks: int = 2
    linear_projection: bool = False
    label_dim: int | None = None
    in_channels: int = 4
    out_channels: int = 4
    up_depth: tuple[tuple[int, ...], ...] | None = None


def build(config: UNetConfig) -> Component:
    """The denoiser component of a UNet with this configuration."""
    rows = _Rows(config)
    width = config.model_channels
    time = width * 4
    rows.add(BASE_BLOCK, "time_embed.0", "time_embedding.linear_1", linear(time, width))
    rows.add(BASE_BLOCK, "time_embed.2", "time_embedding.linear_2", linear(time, time))
    if config.label_dim is not None:
        rows.add(BASE_BLOCK, "label_emb.0.0", "add_embedding.linear_1", linear(time, config.label_dim))
        rows.add(BASE_BLOCK, "label_emb.0.2", "add_embedding.linear_2", linear(time, time))
    skips = _down(rows, config)
    deep = width * config.channel_mult[-1]
    rows.resnet("mid", "middle_block.0", "mid_block.resnets.0", deep, deep)
    if config.middle_depth is not None:
        rows.attention("mid", "middle_block.1", "mid_block.attentions.0", deep, config.middle_depth)
        rows.resnet("mid", "middle_block.2", "mid_block.resnets.1", deep, deep)
    _up(rows, config, skips)
    rows.add(BASE_BLOCK, "out.0", "conv_norm_out", norm(width))
    rows.add(BASE_BLOCK, "out.2", "conv_out", conv(config.out_channels, width, 3))
    return Component(
        name=DENOISER,
        modules=rows.modules,
        checkpoint_prefix="model.diffusion_model.",
        kohya_prefixes=("lora_unet",),
        diffusers_prefix="unet",
        others={} if config.label_dim is None else _LABELS,
    )


# Older names of the pooled condition, which ComfyUI still takes.
_LABELS = {f"class_embedding.linear_{number}": Location(f"label_emb.0.{2 * number - 2}") for number in (1, 2)}


def _down(rows: _Rows, config: UNetConfig) -> list[int]:
    """The way down; returns the widths that the way up takes as skip connections."""
    width = config.model_channels
    rows.add("in00", "input_blocks.0.0", "conv_in", conv(width, config.in_channels, 3))
    skips = [width]
    index = 1
    for level, (factor, depth) in enumerate(zip(config.channel_mult, config.depth, strict=True)):
        out = config.model_channels * factor
        for block in range(config.res_blocks):
            name, native = f"in{index:02d}", f"input_blocks.{index}"
            rows.resnet(name, f"{native}.0", f"down_blocks.{level}.resnets.{block}", width, out)
            width = out
            if depth:
                rows.attention(name, f"{native}.1", f"down_blocks.{level}.attentions.{block}", width, depth)
            skips.append(width)
            index += 1
        if level < len(config.channel_mult) - 1:
            path = f"down_blocks.{level}.downsamplers.0.conv"
            rows.add(f"in{index:02d}", f"input_blocks.{index}.0.op", path, conv(width, width, 3))
            skips.append(width)
            index += 1
    return skips


def _up(rows: _Rows, config: UNetConfig, skips: list[int]) -> None:
    width = config.model_channels * config.channel_mult[-1]
    depths = config.up_depth or tuple((depth,) * (config.res_blocks + 1) for depth in config.depth[::-1])
    levels = list(zip(config.channel_mult[::-1], depths, strict=True))
    index = 0
    for level, (factor, depth) in enumerate(levels):
        out = config.model_channels * factor
        for block in range(config.res_blocks + 1):
            name, native = f"out{index:02d}", f"output_blocks.{index}"
            rows.resnet(name, f"{native}.0", f"up_blocks.{level}.resnets.{block}", width + skips.pop(), out)
            width = out
            if depth[block]:
                rows.attention(name, f"{native}.1", f"up_blocks.{level}.attentions.{block}", width, depth[block])
            if block == config.res_blocks and level < len(levels) - 1:
                position = 2 if depth[block] else 1
                path = f"{native}.{position}.conv"
                rows.add(name, path, f"up_blocks.{level}.upsamplers.0.conv", conv(width, width, 3))
            index += 1


class _Rows:
    """Collects modules under both names."""

    def __init__(self, config: UNetConfig) -> None:
        self.config = config
        self.modules: dict[str, Module] = {}

    def add(self, block: str, native: str, diffusers: str, shapes: Mapping[str, Shape]) -> None:
        self.modules[native] = Module(native, shapes, diffusers, block)

    def add_all(
        self, block: str, native: str, diffusers: str, parts: Sequence[tuple[str, str, Mapping[str, Shape]]]
    ) -> None:
        for inner, outer, shapes in parts:
            self.add(block, f"{native}.{inner}", f"{diffusers}.{outer}", shapes)

    def resnet(self, block: str, native: str, diffusers: str, into: int, out: int) -> None:
        time = self.config.model_channels * 4
        parts: list[tuple[str, str, Mapping[str, Shape]]] = [
            ("in_layers.0", "norm1", norm(into)),
            ("in_layers.2", "conv1", conv(out, into, 3)),
            ("emb_layers.1", "time_emb_proj", linear(out, time)),
            ("out_layers.0", "norm2", norm(out)),
            ("out_layers.3", "conv2", conv(out, out, 3)),
        ]
        if into != out:
            parts.append(("skip_connection", "conv_shortcut", conv(out, into, 1)))
        self.add_all(block, native, diffusers, parts)

    def attention(self, block: str, native: str, diffusers: str, width: int, depth: int) -> None:
        projection = linear(width, width) if self.config.linear_projection else conv(width, width, 1)
        parts: list[tuple[str, str, Mapping[str, Shape]]] = [("norm", "norm", norm(width))]
        parts.append(("proj_in", "proj_in", projection))
        for index in range(depth):
            inner = f"transformer_blocks.{index}"
            parts += [(f"{inner}.norm{number}", f"{inner}.norm{number}", norm(width)) for number in (1, 2, 3)]
            for name, context in (("attn1", width), ("attn2", self.config.context_dim)):
                for leaf, shapes in (
                    ("to_q", linear(width, width, bias=False)),
                    ("to_k", linear(width, context, bias=False)),
                    ("to_v", linear(width, context, bias=False)),
                    ("to_out.0", linear(width, width)),
                ):
                    parts.append((f"{inner}.{name}.{leaf}", f"{inner}.{name}.{leaf}", shapes))
            parts.append((f"{inner}.ff.net.0.proj", f"{inner}.ff.net.0.proj", linear(width * 8, width)))
            parts.append((f"{inner}.ff.net.2", f"{inner}.ff.net.2", linear(width, width * 4)))
        parts.append(("proj_out", "proj_out", projection))
        self.add_all(block, native, diffusers, parts)
