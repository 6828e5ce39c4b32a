"""Stable Cascade: stage C, which most LoRAs are for, and stage B. Source: Stability's StableCascade configurations.

A level is a row of layers, each a residual block ("R"), a modulation by time ("T") and, where the level attends, an
attention ("A"), numbered one by one. Canonical names are ComfyUI's, with q, k and v apart; Stability's checkpoints fuse
them into ``attention.attn.in_proj_weight``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..types import DENOISER, TEXT_ENCODER, Shape, Slice
from . import clip
from .spec import BASE_BLOCK, Architecture, Component, Module, Place, conv, linear

_CONDITION = 1280  # width of CLIP-G


@dataclass(frozen=True, slots=True)
class StageConfig:
    """Widths and depths of a stage.

    Args:
        widths: width of each level.
        depths: layers of each level on the way down; the way up is its mirror.
        attends: whether the layers of a level have an attention.
        repeats: how often the way up repeats each level, from the deepest; each time but the first has a 1x1
            convolution of its own.
        times: what is embedded besides the time.
        context: width of the condition inside the layers.
        inputs: layers outside the levels, path -> shapes.
        kernel: of the convolutions between levels; 1 keeps the width and has a level of names more.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    attends: tuple[bool, ...]
    repeats: tuple[int, ...]
    times: tuple[str, ...]
    context: int
    inputs: Mapping[str, Mapping[str, Shape]]
    kernel: int


STAGE_C = StageConfig(
    widths=(2048, 2048),
    depths=(8, 24),
    attends=(True, True),
    repeats=(1, 1),
    times=("mapper", "mapper_sca", "mapper_crp"),
    context=2048,
    inputs={
        "clip_txt_mapper": linear(2048, _CONDITION),
        "clip_txt_pooled_mapper": linear(2048 * 4, _CONDITION),
        "clip_img_mapper": linear(2048 * 4, 768),
        "embedding.1": conv(2048, 16, 1),
    },
    kernel=1,
)
STAGE_B = StageConfig(
    widths=(320, 640, 1280, 1280),
    depths=(2, 6, 28, 6),
    attends=(False, False, True, True),
    repeats=(3, 3, 2, 2),
    times=("mapper", "mapper_sca"),
    context=1280,
    inputs={
        "effnet_mapper.0": conv(320 * 4, 16, 1),
        "effnet_mapper.2": conv(320, 320 * 4, 1),
        "pixels_mapper.0": conv(320 * 4, 3, 1),
        "pixels_mapper.2": conv(320, 320 * 4, 1),
        "clip_mapper": linear(1280 * 4, _CONDITION),
        "embedding.1": conv(320, 4 * 2 * 2, 1),
    },
    kernel=2,
)


def build(config: StageConfig, diffusers_prefix: str, kohya_prefixes: tuple[str, ...]) -> tuple[Component, ...]:
    """The stage's denoiser, and CLIP-G."""
    rows = _Rows(config)
    for path, shapes in config.inputs.items():
        rows.add(path, shapes)
    levels = list(zip(config.widths, config.depths, config.attends, strict=True))
    for level, part in enumerate(levels):
        if level:
            rows.between("down_downscalers", level, config.widths[level - 1], config.widths[level])
        rows.level("down", level, *part, skip=False)
    for level, part in enumerate(levels[::-1]):
        rows.level("up", level, *part, skip=level > 0)
        for repeat in range(config.repeats[level] - 1):
            rows.add(f"up_repeat_mappers.{level}.{repeat}", conv(part[0], part[0], 1))
        if level < len(levels) - 1:
            rows.between("up_upscalers", level, part[0], levels[::-1][level + 1][0])
    rows.add("clf.1", conv(16, config.widths[0], 1))
    return (
        Component(
            name=DENOISER,
            modules=rows.modules,
            checkpoint_prefix=_CHECKPOINT_PREFIX,
            kohya_prefixes=kohya_prefixes,
            diffusers_prefix=diffusers_prefix,
            places=rows.places,
        ),
        clip.build(
            clip.CLIP_G,
            TEXT_ENCODER,
            checkpoint_prefix="text_encoder.clip_g.transformer.",
            kohya_prefixes=("lora_prior_te", "lora_te"),
            encoder="clip_g",
        ),
    )


_CHECKPOINT_PREFIX = "model.diffusion_model."
# What diffusers calls otherwise; the rest of a path stays.
_DIFFUSERS = {".attention.attn.out_proj": ".attention.to_out.0", ".attention.attn.": ".attention."}


class _Rows:
    """Collects modules, and where checkpoints keep q, k and v."""

    def __init__(self, config: StageConfig) -> None:
        self.config = config
        self.modules: dict[str, Module] = {}
        self.places: dict[tuple[str, str], Place] = {}
        self.layers: dict[str, int] = {"down": 0, "up": 0}

    def add(self, path: str, shapes: Mapping[str, Shape], block: str = BASE_BLOCK) -> None:
        diffusers = "clip_txt_pooled_mapper" if path == "clip_mapper" else path
        for native, other in _DIFFUSERS.items():
            diffusers = diffusers.replace(native, other)
        self.modules[path] = Module(path, shapes, diffusers, block)

    def between(self, name: str, level: int, into: int, out: int) -> None:
        """From one level to the next. On the way up it is a transposed convolution, whose weight is (in, out, ...)."""
        up, kernel = name.startswith("up"), self.config.kernel
        if kernel == 1:
            self.add(f"{name}.{level}.1.blocks.{int(up)}", conv(out, into, 1))
        else:
            weight = (into, out, kernel, kernel) if up else (out, into, kernel, kernel)
            self.add(f"{name}.{level}.1", {"weight": weight, "bias": (out,)})

    def level(self, way: str, level: int, width: int, depth: int, attends: bool, skip: bool) -> None:
        """The layers of a level; the first one on the way up also takes the skip connection."""
        position = 0
        for layer in range(depth):
            block = f"{way}{self.layers[way]:02d}"
            self.layers[way] += 1
            start = f"{way}_blocks.{level}"
            self.residual(f"{start}.{position}", width, width * (2 if skip and layer == 0 else 1), block)
            for name in self.config.times:
                self.add(f"{start}.{position + 1}.{name}", linear(2 * width, 64), block)
            if attends:
                self.attention(f"{start}.{position + 2}", width, block)
            position += 3 if attends else 2

    def residual(self, path: str, width: int, into: int, block: str) -> None:
        self.add(f"{path}.depthwise", conv(width, 1, 3), block)
        self.add(f"{path}.channelwise.0", linear(width * 4, into), block)
        gain = (1, 1, 1, width * 4)
        self.add(f"{path}.channelwise.2", {"gamma": gain, "beta": gain}, block)
        self.add(f"{path}.channelwise.4", linear(width, width * 4), block)

    def attention(self, path: str, width: int, block: str) -> None:
        inner = f"{path}.attention.attn"
        for position, name in enumerate(("to_q", "to_k", "to_v")):
            self.add(f"{inner}.{name}", linear(width, width), block)
            for parameter in ("weight", "bias"):
                key = f"{_CHECKPOINT_PREFIX}{inner}.in_proj_{parameter}"
                self.places[f"{inner}.{name}", parameter] = Place(key, Slice(0, position * width, width))
        self.add(f"{inner}.out_proj", linear(width, width), block)
        self.add(f"{path}.kv_mapper.1", linear(width, self.config.context), block)


ARCHITECTURE = Architecture(
    name="cascade_c",
    title="Stable Cascade",
    # lora_prior_unet: OneTrainer's.
    build=lambda: build(STAGE_C, "prior", ("lora_prior_unet", "lora_unet")),
    modelspec=("stable-cascade-v1-prior",),
    base_versions=("stable_cascade",),
    pipeline=("StableCascadePriorPipeline", "StableCascadeCombinedPipeline"),
)

B = Architecture(
    name="cascade_b",
    title="Stable Cascade stage B",
    build=lambda: build(STAGE_B, "decoder", ("lora_unet",)),
    pipeline=("StableCascadeDecoderPipeline",),
)
