"""Qwen2.5-VL, a language model that also sees, as text encoder: the language model of ``llm.py`` and its eye.

Trainers that adapt every linear layer of the text encoder reach the eye too, and ComfyUI keeps it for pictures that
are edited. Names: those of the published files and of ComfyUI (``visual.blocks.0.attn.qkv``); transformers since
4.52 says ``model.visual.``. Source of the sizes: Qwen's published configuration of the 7B model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..types import Shape
from . import llm
from .spec import Component, Location, Module, linear

WIDTH = 1280
LAYERS = 32
MLP = 3420
# Four neighbouring patches are merged into one token.
MERGED = 4 * WIDTH
EYE = "visual."


def build(config: llm.LlmConfig, component: str, encoder: str, kohya_prefixes: tuple[str, ...]) -> Component:
    """The text encoder with its eye and with the head that the published file carries."""
    language = llm.build(config, component, encoder, kohya_prefixes, stem="model.language_model.")
    rows = dict(_eye(config.width))
    eye = {EYE + path: Module(EYE + path, shapes, f"model.{EYE}{path}") for path, shapes in rows.items()}
    head = Module("lm_head", linear(config.vocabulary, config.width, bias=False), "lm_head")
    return replace(
        language,
        modules={**language.modules, **eye, "lm_head": head},
        aliases={**language.aliases, **{path: Location(path) for path in eye}},
    )


def _eye(out: int) -> Iterator[tuple[str, Mapping[str, Shape]]]:
    """Modules of the vision transformer; ``out`` is the width of the language model."""
    yield "patch_embed.proj", {"weight": (WIDTH, 3, 2, 14, 14)}
    for index in range(LAYERS):
        block = f"blocks.{index}"
        yield f"{block}.norm1", {"weight": (WIDTH,)}
        yield f"{block}.attn.qkv", linear(3 * WIDTH, WIDTH)
        yield f"{block}.attn.proj", linear(WIDTH, WIDTH)
        yield f"{block}.norm2", {"weight": (WIDTH,)}
        yield f"{block}.mlp.gate_proj", linear(MLP, WIDTH)
        yield f"{block}.mlp.up_proj", linear(MLP, WIDTH)
        yield f"{block}.mlp.down_proj", linear(WIDTH, MLP)
    yield "merger.ln_q", {"weight": (WIDTH,)}
    yield "merger.mlp.0", linear(MERGED, MERGED)
    yield "merger.mlp.2", linear(out, MERGED)
