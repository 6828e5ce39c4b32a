"""HunyuanVideo: the blocks of Flux (``streams.py``), and a refiner of the text, itself a small transformer.

Canonical names are ComfyUI's (``double_blocks.0.img_attn.qkv``). Tencent's own code, and with it musubi-tuner and
diffusion-pipe, has ``img_attn_qkv``, ``img_mlp.fc1`` and ``modulation.linear``; FramePack's LoRAs have diffusers'
names. Sources: the published configuration, and diffusers' converter for the order of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..types import TEXT_ENCODER, TEXT_ENCODER_2, Shape
from . import clip, llm, streams
from .spec import Architecture, Component, Location, Module, linear, norm, rows_of

LATENT, REFINER_BLOCKS = 16, 2
TRANSFORMER = streams.StreamsConfig(
    width=3072, double=20, single=40, context=4096, names=streams.FLUX_NAMES, pooled=768, guidance=True
)
REFINER, THEIR_REFINER = "txt_in.individual_token_refiner.blocks", "context_embedder.token_refiner.refiner_blocks"
# Part of a path here -> in Tencent's code.
ORIGINAL = {
    "_attn.norm.query_norm": "_attn_q_norm",
    "_attn.norm.key_norm": "_attn_k_norm",
    ".norm.query_norm": ".q_norm",
    ".norm.key_norm": ".k_norm",
    "_attn.qkv": "_attn_qkv",
    "_attn.proj": "_attn_proj",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
    "_mod.lin": "_mod.linear",
    ".modulation.lin": ".modulation.linear",
    "c_embedder.in_layer": "c_embedder.linear_1",
    "c_embedder.out_layer": "c_embedder.linear_2",
    **{f"{name}.in_layer": f"{name}.mlp.0" for name in ("time_in", "guidance_in", "t_embedder")},
    **{f"{name}.out_layer": f"{name}.mlp.2" for name in ("time_in", "guidance_in", "t_embedder")},
}


def build(in_channels: int = LATENT) -> Component:
    """The denoiser component; image-to-video models get the first frame as further channels."""
    blocks = streams.build(TRANSFORMER)
    modules = {path: _with_weights(module) for path, module in blocks.modules.items()}
    del modules["img_in"], modules["txt_in"]
    width = TRANSFORMER.width
    convolution: Mapping[str, Shape] = {"weight": (width, in_channels, 1, 2, 2), "bias": (width,)}
    modules["img_in.proj"] = Module("img_in.proj", convolution, "x_embedder.proj")
    aliases = dict(blocks.aliases)
    for path, name, shapes in _text():
        modules[path] = Module(path, shapes, name)
    for index in range(REFINER_BLOCKS):
        stem, theirs = f"{REFINER}.{index}.", f"{THEIR_REFINER}.{index}."
        for path, name, shapes in _refiner_block():
            modules[stem + path] = Module(stem + path, shapes, name and theirs + name)
        names = [f"{theirs}attn.to_{name}" for name in "qkv"]
        aliases |= rows_of(f"{stem}self_attn.qkv", names, [width] * 3)
    originals = {original(path): Location(path) for path in modules if original(path) != path}
    numbered = {path: location for path, location in blocks.others.items() if location.path in modules}
    return replace(blocks, modules=modules, aliases=aliases, others=numbered | originals)


def original(path: str) -> str:
    """The name of a path in Tencent's code: ``single_blocks.0.norm.key_norm`` is ``single_blocks.0.k_norm``."""
    for ours, theirs in ORIGINAL.items():
        path = path.replace(ours, theirs)
    return path


def _with_weights(module: Module) -> Module:
    """Flux's norms have a ``scale``; here it is a ``weight``, which older versions of ComfyUI load as ``scale``."""
    if "scale" not in module.shapes:
        return module
    return replace(module, shapes={"weight": module.shapes["scale"]}, also={"weight": ("scale",)})


# (our path, diffusers' path, shapes)
Rows = Iterator[tuple[str, str, Mapping[str, Shape]]]


def _text() -> Rows:
    """The refiner outside its blocks: the text, and the time with the mean of the text."""
    width, context = TRANSFORMER.width, TRANSFORMER.context
    embed = "context_embedder.time_text_embed"
    yield "txt_in.input_embedder", "context_embedder.proj_in", linear(width, context)
    for name, theirs, into in (("t", "timestep", streams.TIME), ("c", "text", context)):
        yield f"txt_in.{name}_embedder.in_layer", f"{embed}.{theirs}_embedder.linear_1", linear(width, into)
        yield f"txt_in.{name}_embedder.out_layer", f"{embed}.{theirs}_embedder.linear_2", linear(width, width)


def _refiner_block() -> Rows:
    width = TRANSFORMER.width
    yield "adaLN_modulation.1", "norm_out.linear", linear(2 * width, width)
    yield "norm1", "norm1", norm(width)
    yield "self_attn.qkv", "", linear(3 * width, width)
    yield "self_attn.proj", "attn.to_out.0", linear(width, width)
    yield "norm2", "norm2", norm(width)
    yield "mlp.0", "ff.net.0.proj", linear(4 * width, width)
    yield "mlp.2", "ff.net.2", linear(width, 4 * width)


def _components(in_channels: int = LATENT) -> tuple[Component, ...]:
    return (
        build(in_channels),
        llm.build(llm.LLAMA3_8B, TEXT_ENCODER, "llama", ("lora_te1", "lora_te")),
        # ComfyUI takes CLIP's names, which are not LLaMA's, with any number.
        clip.build(
            clip.CLIP_L, TEXT_ENCODER_2, "text_encoders.clip_l.transformer.", ("lora_te2", "lora_te1", "lora_te")
        ),
    )


ARCHITECTURE = Architecture(
    name="hunyuan_video",
    title="HunyuanVideo",
    build=_components,
    # musubi-tuner; FramePack is this model with more inputs
    modelspec=("hunyuan-video", "framepack"),
    base_versions=("hunyuan_video", "framepack"),
    pipeline=("HunyuanVideoPipeline", "HunyuanVideoFramepackPipeline"),
)
I2V = Architecture(
    name="hunyuan_video_i2v",
    title="HunyuanVideo I2V",
    build=lambda: _components(2 * LATENT + 1),
    pipeline=("HunyuanVideoImageToVideoPipeline",),
    variant_of="hunyuan_video",
)
SKYREELS = Architecture(
    name="hunyuan_video_skyreels_i2v",
    title="SkyReels I2V",
    build=lambda: _components(2 * LATENT),
    pipeline=("HunyuanSkyreelsImageToVideoPipeline",),
    variant_of="hunyuan_video",
)
