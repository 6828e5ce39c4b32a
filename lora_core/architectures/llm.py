"""Language models as text encoders (LLaMA 3, Qwen 2.5 and 3, Gemma 2, Mistral 3) from widths and depth.

Canonical names are ComfyUI's and those of the published files, ``model.layers.0.self_attn.q_proj``. transformers drops
``model.`` in classes without a head (``Qwen3Model``), and says ``model.language_model.`` where the model also sees
(``Qwen2_5_VLForConditionalGeneration``); LoRA files have all of these. Source of the sizes: the models' published
configurations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..types import Shape
from .spec import Component, Location, Module, linear

STEM = "model."
# What transformers' classes put in place of ``model.``.
STEMS = ("", "language_model.", "model.language_model.")


@dataclass(frozen=True, slots=True)
class LlmConfig:
    """Widths and depth of a decoder that reads prompts.

    Args:
        width: hidden size.
        layers: transformer layers.
        mlp: width inside the feed-forward.
        heads, kv_heads: attention heads of the queries, and of the keys and values.
        vocabulary: rows of the token embedding.
        head_width: width of one head; ``heads * head_width`` need not be ``width``.
        qkv_bias: q, k and v have a bias (Qwen 2.5).
        qk_norm: each head's queries and keys are normed (Qwen 3).
        feedforward_norms: norms before and after the feed-forward besides the two of a layer (Gemma).
    """

    width: int
    layers: int
    mlp: int
    heads: int
    kv_heads: int
    vocabulary: int
    head_width: int = 128
    qkv_bias: bool = False
    qk_norm: bool = False
    feedforward_norms: bool = False


LLAMA3_8B = LlmConfig(width=4096, layers=32, mlp=14336, heads=32, kv_heads=8, vocabulary=128320)
MISTRAL3_24B = LlmConfig(width=5120, layers=40, mlp=32768, heads=32, kv_heads=8, vocabulary=131072)
QWEN25_VL_7B = LlmConfig(width=3584, layers=28, mlp=18944, heads=28, kv_heads=4, vocabulary=152064, qkv_bias=True)
QWEN3_06B = LlmConfig(width=1024, layers=28, mlp=3072, heads=16, kv_heads=8, vocabulary=151936, qk_norm=True)
QWEN3_4B = LlmConfig(width=2560, layers=36, mlp=9728, heads=32, kv_heads=8, vocabulary=151936, qk_norm=True)
QWEN3_8B = LlmConfig(width=4096, layers=36, mlp=12288, heads=32, kv_heads=8, vocabulary=151936, qk_norm=True)
GEMMA2_2B = LlmConfig(
    width=2304,
    layers=26,
    mlp=9216,
    heads=8,
    kv_heads=4,
    vocabulary=256000,
    head_width=256,
    feedforward_norms=True,
)


def build(
    config: LlmConfig,
    component: str,
    encoder: str,
    kohya_prefixes: tuple[str, ...],
    stem: str = "",
) -> Component:
    """A text-encoder component.

    Args:
        config: sizes.
        component: its name, also its folder in a diffusers pipeline.
        encoder: ComfyUI's name of it, ``"qwen3_4b"``.
        kohya_prefixes: what kohya's names begin with.
        stem: what the pipeline's transformers class says for ``model.``; one of ``STEMS``.
    """
    shapes: dict[str, Mapping[str, Shape]] = {"embed_tokens": {"weight": (config.vocabulary, config.width)}}
    for index in range(config.layers):
        shapes |= {f"layers.{index}.{path}": parameters for path, parameters in _layer(config).items()}
    shapes["norm"] = _rms(config.width)
    return Component(
        name=component,
        modules={STEM + path: Module(STEM + path, parameters, stem + path) for path, parameters in shapes.items()},
        checkpoint_prefix=f"text_encoders.{encoder}.transformer.",
        kohya_prefixes=kohya_prefixes,
        diffusers_prefix=component,
        aliases={other + path: Location(STEM + path) for path in shapes for other in STEMS},
        encoder=encoder,
    )


def _layer(config: LlmConfig) -> dict[str, Mapping[str, Shape]]:
    """Modules of one layer."""
    queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
    rows: dict[str, Mapping[str, Shape]] = {
        "input_layernorm": _rms(config.width),
        "self_attn.q_proj": linear(queries, config.width, config.qkv_bias),
        "self_attn.k_proj": linear(keys, config.width, config.qkv_bias),
        "self_attn.v_proj": linear(keys, config.width, config.qkv_bias),
        "self_attn.o_proj": linear(config.width, queries, bias=False),
        "post_attention_layernorm": _rms(config.width),
        "mlp.gate_proj": linear(config.mlp, config.width, bias=False),
        "mlp.up_proj": linear(config.mlp, config.width, bias=False),
        "mlp.down_proj": linear(config.width, config.mlp, bias=False),
    }
    if config.qk_norm:
        rows |= {f"self_attn.{name}_norm": _rms(config.head_width) for name in "qk"}
    if config.feedforward_norms:
        rows |= {f"{name}_feedforward_layernorm": _rms(config.width) for name in ("pre", "post")}
    return rows


def _rms(width: int) -> Mapping[str, Shape]:
    return {"weight": (width,)}
