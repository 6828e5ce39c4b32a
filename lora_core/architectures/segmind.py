"""Segmind's distilled SDXL: SSD-1B and Vega, with fewer transformer blocks. Source: their UNets' configurations.

Names are SDXL's, but the blocks that are left have other numbers than there, so a LoRA of one is not for the other.
"""

from __future__ import annotations

from dataclasses import replace

from . import sdxl
from .spec import Architecture

SSD_1B_UNET = replace(sdxl.UNET, depth=(0, 2, 4), middle_depth=None, up_depth=((4, 4, 10), (2, 1, 1), (0, 0, 0)))
VEGA_UNET = replace(sdxl.UNET, depth=(0, 1, 2), middle_depth=None, up_depth=((2, 2, 2), (1, 1, 1), (0, 0, 0)))

SSD_1B = Architecture(
    name="ssd_1b",
    title="SSD-1B",
    build=lambda: sdxl.build(SSD_1B_UNET),
    pipeline=("StableDiffusionXLPipeline",),
)

VEGA = Architecture(
    name="segmind_vega",
    title="Segmind Vega",
    build=lambda: sdxl.build(VEGA_UNET),
    pipeline=("StableDiffusionXLPipeline",),
)
