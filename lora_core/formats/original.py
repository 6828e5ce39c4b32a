"""The model's own names without any prefix: ``double_blocks.0.img_attn.qkv.lora_A.weight``.

BFL's control LoRAs, DiffSynth (with ``.default``), and files whose prefix somebody took off. The same keys with
diffusers' paths are of the diffusers format; what fits decides.
"""

from __future__ import annotations

from ..architectures import Architecture, Component
from ..types import DENOISER
from .base import Format, Found, NamedRole, Names
from .diffusers import split as split_diffusers
from .dotted import own_paths, table


def split(key: str) -> Found:
    """As the diffusers format does, and what BFL's control LoRAs have besides.

    ``img_in`` takes the control picture's channels too, so its down factor is as wide as the new layer, and the norms
    of q and k are stored whole (``...norm.key_norm.scale``).
    """
    if key.endswith("_norm.scale"):
        return NamedRole(key.removesuffix(".scale"), "set_weight")
    found = split_diffusers(key)
    if found == NamedRole("img_in", "down"):
        return NamedRole("img_in", "wide_down")
    return found


def names(architecture: Architecture) -> Names:
    """The denoiser's own paths, bare."""

    def prefixes(component: Component) -> tuple[str, ...]:
        return ("",) if component.name == DENOISER else ()

    return table(architecture, prefixes, own_paths)


FORMAT = Format("original", "original names", split, names)
