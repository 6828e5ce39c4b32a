"""AnimateDiff's motion module for Stable Diffusion 1.5: a file of its own beside a checkpoint, none of whose modules
it has. Motion LoRAs (zoom, pan) are for it. Source: guoyww's AnimateDiff, module of version 2.

Canonical names are AnimateDiff's (``down_blocks.0.motion_modules.0.temporal_transformer.proj_in``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from ..types import DENOISER, Shape
from .spec import Architecture, Component, Module, linear, norm

WIDTHS = (320, 640, 1280, 1280)
_MID = 1280


def build() -> tuple[Component, ...]:
    """A module after each residual block: two a level on the way down, three on the way up, one in the middle."""
    places = [("down", level, number, WIDTHS[level]) for level, number in product(range(4), range(2))]
    places += [("up", level, number, WIDTHS[::-1][level]) for level, number in product(range(4), range(3))]
    named = [(f"{way}{level:02d}", f"{way}_blocks.{level}", number, width) for way, level, number, width in places]
    modules: dict[str, Module] = {}
    for block, start, number, width in (*named, ("mid", "mid_block", 0, _MID)):
        path = f"{start}.motion_modules.{number}"
        for own, diffusers, shapes in _layers(width):
            native = f"{path}.temporal_transformer.{own}"
            modules[native] = Module(native, shapes, f"{path}.{diffusers}", block)
    return (
        Component(
            name=DENOISER,
            modules=modules,
            checkpoint_prefix="",
            kohya_prefixes=("lora_unet",),
            diffusers_prefix="unet",
        ),
    )


def _layers(width: int) -> Iterator[tuple[str, str, Mapping[str, Shape]]]:
    """AnimateDiff's name, diffusers' name and shapes of each layer of a motion module."""
    block = "transformer_blocks.0"
    yield "norm", "norm", norm(width)
    yield "proj_in", "proj_in", linear(width, width)
    for index in range(2):
        own, diffusers = f"{block}.attention_blocks.{index}", f"{block}.attn{index + 1}"
        for name in ("to_q", "to_k", "to_v"):
            yield f"{own}.{name}", f"{diffusers}.{name}", linear(width, width, bias=False)
        yield f"{own}.to_out.0", f"{diffusers}.to_out.0", linear(width, width)
        yield f"{block}.norms.{index}", f"{block}.norm{index + 1}", norm(width)
    yield f"{block}.ff.net.0.proj", f"{block}.ff.net.0.proj", linear(width * 8, width)
    yield f"{block}.ff.net.2", f"{block}.ff.net.2", linear(width, width * 4)
    yield f"{block}.ff_norm", f"{block}.norm3", norm(width)
    yield "proj_out", "proj_out", linear(width, width)


ARCHITECTURE = Architecture(
    name="sd15_motion",
    title="AnimateDiff motion module for SD 1.5",
    build=build,
    pipeline=("AnimateDiffPipeline",),
)
