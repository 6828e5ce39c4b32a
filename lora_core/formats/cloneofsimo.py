"""cloneofsimo's first LoRAs: ``unet:12:up``, ``text_encoder:3:down``, numbered modules instead of names.

The number counts the linear layers of the attentions and feed-forwards as diffusers' model lists them: blocks down,
up, and the middle last; in each attention q, k, v, out (CLIP: k, v, q, out). diffusers once listed the feed-forward
between the two attentions and later behind them, and files of attentions alone do not count it: three readings, of
which the shapes tell the right one. The first files are pickled lists, up and down in turn, of the UNet or of the text
encoder; their keys are positions. No alpha; the up factor holds the scale. Embeddings stand under the token itself
(``<s1>``), and the metadata says ``<embed>`` there. Source: cloneofsimo/lora.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..architectures import Architecture, Component
from ..io import TensorSource
from ..types import DENOISER, TEXT_ENCODER, ModuleKey
from .base import Embedded, Format, Found, Located, NamedRole, Names, Reading

_KEY = re.compile(r"((?:unet|text_encoder):\d{1,4}):(up|down)")
_LEAVES = ("to_q", "to_k", "to_v", "to_out.0")
_ATTN1 = tuple(f"attn1.{leaf}" for leaf in _LEAVES)
_ATTN2 = tuple(f"attn2.{leaf}" for leaf in _LEAVES)
_FEED_FORWARD = ("ff.net.0.proj",)
_TEXT = ("k_proj", "v_proj", "q_proj", "out_proj")
_FOLDERS = ("down_blocks.", "up_blocks.", "mid_block.")
_BLOCK = re.compile(r"((?:down_blocks|up_blocks|mid_block)\..*\.transformer_blocks\.\d+)\.")


def split(key: str) -> Found:
    """``unet:12:up`` -> (``unet:12``, ``up``); ``25``, a position in a list -> (``12``, ``down``)."""
    if key.isascii() and key.isdigit() and len(key) < 5:
        return NamedRole(str(int(key) // 2), "down" if int(key) % 2 else "up")
    found = _KEY.fullmatch(key)
    return NamedRole(found[1], found[2]) if found else None


def embeddings(file: TensorSource) -> Mapping[str, Embedded]:
    """The keys that the metadata calls embeddings; they are of the text encoder that the file trains."""
    return {key: Embedded(key, "clip_l") for key in file if file.metadata.get(key) == "<embed>"}


def reading(leaves: tuple[str, ...], listed: str = "unet") -> Reading:
    """Names for one order of a transformer block's layers; ``listed``: whose layers a list without names is of."""

    def names(architecture: Architecture) -> Names:
        unet, text = architecture.component(DENOISER), architecture.component(TEXT_ENCODER)
        paths = [f"{block}.{leaf}" for block in _blocks(unet) for leaf in leaves] if unet else []
        table = {f"unet:{index}": _located(unet, path) for index, path in enumerate(paths) if unet}
        layers = sum(path.endswith("self_attn.q_proj") for path in text.modules) if text else 0
        own = [f"text_model.encoder.layers.{layer}.self_attn.{leaf}" for layer in range(layers) for leaf in _TEXT]
        table |= {f"text_encoder:{index}": _located(text, path) for index, path in enumerate(own) if text}
        table |= {name.removeprefix(f"{listed}:"): located for name, located in table.items()}
        return {name: located for name, located in table.items() if located is not None}

    return names


def _blocks(unet: Component) -> list[str]:
    """Transformer blocks by diffusers' paths, the middle last."""
    found = dict.fromkeys(match[1] for path in unet.diffusers if (match := _BLOCK.match(path)))

    def position(block: str) -> tuple[int, list[int]]:
        folder = next(number for number, start in enumerate(_FOLDERS) if block.startswith(start))
        return folder, [int(part) for part in block.split(".") if part.isdigit()]

    return sorted(found, key=position)


def _located(component: Component, path: str) -> Located | None:
    location = component.diffusers.get(path)
    return location and Located(ModuleKey(component.name, location.path), location.slice)


FORMAT = Format(
    "cloneofsimo",
    "cloneofsimo",
    split,
    names=reading((*_ATTN1, *_FEED_FORWARD, *_ATTN2)),
    readings=(
        reading((*_ATTN1, *_ATTN2, *_FEED_FORWARD)),
        reading((*_ATTN1, *_ATTN2)),
        reading((), listed="text_encoder"),
    ),
    embeddings=embeddings,
)
