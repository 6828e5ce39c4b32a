"""The model's own names below a pipeline folder: ``unet.input_blocks.4.1.proj_in.lora_up.weight``.

OneTrainer's OMI files, with kohya's suffixes and ``.dora_scale``; text encoders are called ``clip_l``, ``clip_g`` and
``t5`` there. Also the first HunyuanVideo LoRAs (``transformer.single_blocks.0.modulation.linear.lora_A.weight``).
Source: OneTrainer's conversion tables.
"""

from __future__ import annotations

from ..architectures import Architecture, Component
from ..types import DENOISER
from .base import Format, Names
from .dotted import every_path, own_paths, table
from .dotted_keys import split


def names(architecture: Architecture) -> Names:
    """Own paths of the denoiser behind its folder, and of text encoders behind their short names."""

    def denoiser(component: Component) -> tuple[str, ...]:
        return (f"{component.diffusers_prefix}.",) if component.name == DENOISER else ()

    def text(component: Component) -> tuple[str, ...]:
        if component.name == DENOISER:
            return ()
        return f"{component.encoder}.", f"{component.encoder.removesuffix('xxl')}."

    return {**table(architecture, denoiser, own_paths), **table(architecture, text, every_path)}


FORMAT = Format("omi", "OneTrainer OMI", split, names)
