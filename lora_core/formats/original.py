"""The model's own names without any prefix: ``double_blocks.0.img_attn.qkv.lora_A.weight``.

BFL's control LoRAs, DiffSynth (with ``.default``), and files whose prefix somebody took off. The same keys with
diffusers' paths are of the diffusers format; what fits decides.
"""

from __future__ import annotations

from ..architectures import Architecture, Component
from ..types import DENOISER
from .base import Format, Names
from .dotted import own_paths, table
from .dotted_keys import split


def names(architecture: Architecture) -> Names:
    """The denoiser's own paths, bare."""

    def prefixes(component: Component) -> tuple[str, ...]:
        return ("",) if component.name == DENOISER else ()

    return table(architecture, prefixes, own_paths)


FORMAT = Format("original", "original names", split, names)
