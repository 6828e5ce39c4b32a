"""CLIP text encoders from widths and depth, in both layouts that checkpoints use.

Canonical names are transformers' (``text_model.encoder.layers.0.self_attn.q_proj``). open_clip's
checkpoints fuse q, k and v into ``attn.in_proj_weight`` and store ``text_projection`` transposed. LoRA
files of programs that train open_clip's own modules have its names: those are among ``Component.others``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..types import Shape, Slice
from .spec import Component, Location, Module, Place, linear, norm

# Module of a layer in transformers -> in open_clip.
_OPEN_CLIP_LAYER = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
# What comes in open_clip before ``resblocks``: the layers of a whole CLIP are in ``transformer``.
_OPEN_CLIP_LAYERS = "transformer.resblocks"
_FUSED = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """Widths and depth of a text encoder.

    Args:
        width: hidden size.
        layers: transformer layers.
        vocabulary: rows of the token embedding.
        mlp: width inside the feed-forward, usually ``4 * width``.
        projection: width of ``text_projection``, or None where the encoder has none.
        positions: longest prompt in tokens.
    """

    width: int
    layers: int
    vocabulary: int = 49408
    mlp: int | None = None
    projection: int | None = None
    positions: int = 77


# The encoders that several families have. Sources: OpenAI's ViT-L/14, LAION's ViT-H-14 and ViT-bigG-14.
CLIP_L = ClipConfig(width=768, layers=12)
CLIP_H = ClipConfig(width=1024, layers=24, projection=1024)
CLIP_G = ClipConfig(width=1280, layers=32, projection=1280)


def build(
    config: ClipConfig,
    component: str,
    checkpoint_prefix: str,
    kohya_prefixes: tuple[str, ...],
    layout: Literal["transformers", "open_clip"] = "transformers",
    encoder: str = "clip_l",
    diffusers_prefix: str = "",
) -> Component:
    """A text-encoder component; ``component`` is also its folder in a diffusers pipeline, unless that is given."""
    width, inner = config.width, config.mlp or 4 * config.width
    shapes: dict[str, Mapping[str, Shape]] = {
        "text_model.embeddings.token_embedding": {"weight": (config.vocabulary, width)},
        "text_model.embeddings.position_embedding": {"weight": (config.positions, width)},
    }
    for index in range(config.layers):
        layer = f"text_model.encoder.layers.{index}"
        shapes[f"{layer}.layer_norm1"] = norm(width)
        for name in (*_FUSED, "out_proj"):
            shapes[f"{layer}.self_attn.{name}"] = linear(width, width)
        shapes[f"{layer}.layer_norm2"] = norm(width)
        shapes[f"{layer}.mlp.fc1"] = linear(inner, width)
        shapes[f"{layer}.mlp.fc2"] = linear(width, inner)
    shapes["text_model.final_layer_norm"] = norm(width)
    if config.projection is not None:
        shapes["text_projection"] = linear(config.projection, width, bias=False)
    fused = layout == "open_clip"
    return Component(
        name=component,
        modules={path: Module(path, parameters, path) for path, parameters in shapes.items()},
        checkpoint_prefix=checkpoint_prefix,
        kohya_prefixes=kohya_prefixes,
        diffusers_prefix=diffusers_prefix or component,
        encoder=encoder,
        # transformers 5 dropped "text_model." from the module names of CLIPTextModel, and so from LoRA files.
        aliases={path.removeprefix("text_model."): Location(path) for path in shapes},
        others=_open_clip_names(config) if fused else {},
        places=_open_clip_places(config, checkpoint_prefix) if fused else {},
    )


def _open_clip_names(config: ClipConfig) -> dict[str, Location]:
    """open_clip's paths; ``attn.in_proj`` is q, k and v, one below the other."""
    names: dict[str, Location] = {
        "token_embedding": Location("text_model.embeddings.token_embedding"),
        "ln_final": Location("text_model.final_layer_norm"),
    }
    for index in range(config.layers):
        layer, block = f"text_model.encoder.layers.{index}", f"{_OPEN_CLIP_LAYERS}.{index}"
        query, key, value = (Location(f"{layer}.self_attn.{name}") for name in _FUSED)
        names[f"{block}.attn.in_proj"] = query._replace(more=(key, value))
        for name, other in _OPEN_CLIP_LAYER.items():
            names[f"{block}.{other}"] = Location(f"{layer}.{name}")
    return names


def _open_clip_places(config: ClipConfig, prefix: str) -> dict[tuple[str, str], Place]:
    """Where open_clip keeps each parameter of the transformers layout."""
    places = {
        ("text_model.embeddings.token_embedding", "weight"): Place(f"{prefix}token_embedding.weight"),
        ("text_model.embeddings.position_embedding", "weight"): Place(f"{prefix}positional_embedding"),
        ("text_projection", "weight"): Place(f"{prefix}text_projection", transposed=True),
    }
    renamed = {"text_model.final_layer_norm": "ln_final"}
    for index in range(config.layers):
        layer, block = f"text_model.encoder.layers.{index}", f"{_OPEN_CLIP_LAYERS}.{index}"
        for position, name in enumerate(_FUSED):
            rows = Slice(0, position * config.width, config.width)
            for parameter in ("weight", "bias"):
                fused = Place(f"{prefix}{block}.attn.in_proj_{parameter}", rows)
                places[f"{layer}.self_attn.{name}", parameter] = fused
        renamed |= {f"{layer}.{name}": f"{block}.{other}" for name, other in _OPEN_CLIP_LAYER.items()}
    for path, name in renamed.items():
        for parameter in ("weight", "bias"):
            places[path, parameter] = Place(f"{prefix}{name}.{parameter}")
    return places
