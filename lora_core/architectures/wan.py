"""Wan 2.1 and 2.2, video transformers, from widths and depth.

Canonical names are those of the original code and of ComfyUI (``blocks.0.self_attn.q``); diffusers' are one to one.
The models with 14 billion parameters are one family: text-to-video LoRAs fit image-to-video models, and what those
have besides (``k_img``, ``v_img``, ``img_emb``) is reported as missing elsewhere. The small models have other widths,
so a LoRA for 14B names modules of theirs and fits none of them. Source of the sizes: the published ``config.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..types import TEXT_ENCODER, Shape
from . import t5
from .spec import Architecture, Component, Module, linear, norm, transformer

TEXT_WIDTH, TIME_WIDTH, IMAGE_WIDTH = 4096, 256, 1280
# Modulations are parameters without a module of their own; this is what diffusers calls them.
TABLE = "scale_shift_table"


@dataclass(frozen=True, slots=True)
class WanConfig:
    """Widths and depth.

    Args:
        width: hidden size.
        mlp: width inside the feed-forward.
        layers: blocks.
        in_channels, out_channels: latent channels; image-to-video models also get the first frame and a mask.
        image: reads CLIP's view of the first frame (Wan 2.1 image-to-video).
        vace_layers: blocks of the side branch of VACE; 0 for none.
    """

    width: int
    mlp: int
    layers: int
    in_channels: int = 16
    out_channels: int = 16
    image: bool = False
    vace_layers: int = 0


# our path -> (diffusers', shapes)
Rows = dict[str, tuple[str, Mapping[str, Shape]]]


def build(config: WanConfig) -> Component:
    """The denoiser component."""
    modules = {path: Module(path, shapes, name) for path, (name, shapes) in _outside(config).items()}
    stacks = {"blocks": config.layers, "vace_blocks": config.vace_layers}
    for stack, count in stacks.items():
        for index in range(count):
            stem, block = f"{stack}.{index}", f"{'vace' if stack == 'vace_blocks' else 'block'}{index:02d}"
            rows = _block(config) | (_vace(config, index) if stack == "vace_blocks" else {})
            modules[stem] = Module(stem, {"modulation": (1, 6, config.width)}, f"{stem}.{TABLE}", block)
            for path, (name, shapes) in rows.items():
                modules[f"{stem}.{path}"] = Module(f"{stem}.{path}", shapes, f"{stem}.{name}", block)
    return transformer(
        modules,
    )


def _patches(width: int, channels: int) -> Mapping[str, Shape]:
    """A convolution over frames of two by two pixels."""
    return {"weight": (width, channels, 1, 2, 2), "bias": (width,)}


def _outside(config: WanConfig) -> Rows:
    width, embedder = config.width, "condition_embedder"
    rows: Rows = {
        "patch_embedding": ("patch_embedding", _patches(width, config.in_channels)),
        "text_embedding.0": (f"{embedder}.text_embedder.linear_1", linear(width, TEXT_WIDTH)),
        "text_embedding.2": (f"{embedder}.text_embedder.linear_2", linear(width, width)),
        "time_embedding.0": (f"{embedder}.time_embedder.linear_1", linear(width, TIME_WIDTH)),
        "time_embedding.2": (f"{embedder}.time_embedder.linear_2", linear(width, width)),
        "time_projection.1": (f"{embedder}.time_proj", linear(6 * width, width)),
        "head": (TABLE, {"modulation": (1, 2, width)}),
        "head.head": ("proj_out", linear(4 * config.out_channels, width)),
    }
    if config.image:
        image = f"{embedder}.image_embedder"
        rows |= {
            "img_emb.proj.0": (f"{image}.norm1", norm(IMAGE_WIDTH)),
            "img_emb.proj.1": (f"{image}.ff.net.0.proj", linear(IMAGE_WIDTH, IMAGE_WIDTH)),
            "img_emb.proj.3": (f"{image}.ff.net.2", linear(width, IMAGE_WIDTH)),
            "img_emb.proj.4": (f"{image}.norm2", norm(width)),
        }
    if config.vace_layers:
        # Six latents: the frames to keep and to make, and the mask in patches of 8 by 8 pixels.
        rows["vace_patch_embedding"] = ("vace_patch_embedding", _patches(width, 96))
    return rows


def _block(config: WanConfig) -> Rows:
    """Modules of one block."""
    width = config.width
    rms: Mapping[str, Shape] = {"weight": (width,)}
    rows: Rows = {}
    for native, diffusers in (("self_attn", "attn1"), ("cross_attn", "attn2")):
        for name in "qkv":
            rows[f"{native}.{name}"] = (f"{diffusers}.to_{name}", linear(width, width))
        rows[f"{native}.o"] = (f"{diffusers}.to_out.0", linear(width, width))
        for name in "qk":
            rows[f"{native}.norm_{name}"] = (f"{diffusers}.norm_{name}", rms)
    rows["norm3"] = ("norm2", norm(width))
    rows["ffn.0"] = ("ffn.net.0.proj", linear(config.mlp, width))
    rows["ffn.2"] = ("ffn.net.2", linear(width, config.mlp))
    if config.image:
        for name in "kv":
            rows[f"cross_attn.{name}_img"] = (f"attn2.add_{name}_proj", linear(width, width))
        rows["cross_attn.norm_k_img"] = ("attn2.norm_added_k", rms)
    return rows


def _vace(config: WanConfig, index: int) -> Rows:
    """What a block of VACE's side branch has besides."""
    rows: Rows = {"after_proj": ("proj_out", linear(config.width, config.width))}
    if index == 0:
        rows["before_proj"] = ("proj_in", linear(config.width, config.width))
    return rows


def _components(config: WanConfig) -> tuple[Component, ...]:
    return build(config), t5.build(t5.UMT5_XXL, TEXT_ENCODER, ("lora_te", "lora_te1"), encoder="umt5xxl")


T2V_14B = Architecture(
    name="wan_t2v_14b",
    title="Wan 2.1 / 2.2 T2V 14B",
    build=lambda: _components(WanConfig(width=5120, mlp=13824, layers=40)),
    # musubi-tuner; ai-toolkit
    modelspec=("wan2.1",),
    base_versions=("wan", "wan_2.1", "wan_2.2_14b"),
    pipeline=("WanPipeline", "WanVideoToVideoPipeline"),
)
I2V_14B = Architecture(
    name="wan21_i2v_14b",
    title="Wan 2.1 I2V 14B",
    build=lambda: _components(WanConfig(width=5120, mlp=13824, layers=40, in_channels=36, image=True)),
    pipeline=("WanImageToVideoPipeline",),
    variant_of="wan_t2v_14b",
)
I2V_A14B = Architecture(
    name="wan22_i2v_a14b",
    title="Wan 2.2 I2V A14B",
    build=lambda: _components(WanConfig(width=5120, mlp=13824, layers=40, in_channels=36)),
    variant_of="wan_t2v_14b",
)
VACE_14B = Architecture(
    name="wan21_vace_14b",
    title="Wan 2.1 VACE 14B",
    build=lambda: _components(WanConfig(width=5120, mlp=13824, layers=40, vace_layers=8)),
    pipeline=("WanVACEPipeline",),
    variant_of="wan_t2v_14b",
)
T2V_1_3B = Architecture(
    name="wan21_t2v_1_3b",
    title="Wan 2.1 T2V 1.3B",
    build=lambda: _components(WanConfig(width=1536, mlp=8960, layers=30)),
    base_versions=("wan_v2.1_1.3b",),
    pipeline=("WanPipeline",),
)
I2V_1_3B = Architecture(
    name="wan21_fun_1_3b",
    title="Wan 2.1 Fun 1.3B",  # the image-to-video model of this size is VideoX-Fun's
    build=lambda: _components(WanConfig(width=1536, mlp=8960, layers=30, in_channels=36, image=True)),
    variant_of="wan21_t2v_1_3b",
)
VACE_1_3B = Architecture(
    name="wan21_vace_1_3b",
    title="Wan 2.1 VACE 1.3B",
    build=lambda: _components(WanConfig(width=1536, mlp=8960, layers=30, vace_layers=15)),
    variant_of="wan21_t2v_1_3b",
)
TI2V_5B = Architecture(
    name="wan22_ti2v_5b",
    title="Wan 2.2 TI2V 5B",
    build=lambda: _components(WanConfig(width=3072, mlp=14336, layers=30, in_channels=48, out_channels=48)),
    base_versions=("wan_2.2_5b",),
    pipeline=("WanPipeline",),
)
