"""Model families. One family is one file and one row; the order decides between equal fits."""

from __future__ import annotations

from ..registry import Registry
from . import (
    animatediff,
    cascade,
    chroma,
    flux,
    flux2,
    loom_demo,
    lumina,
    qwen_image,
    refiner,
    sd3,
    sd15,
    sd21,
    sdxl,
    segmind,
    wan,
    z_image,
)
from .spec import Architecture, Component, Location, Module, Place

ARCHITECTURES: Registry[Architecture] = Registry(
    "architecture",
    (
        sd15.ARCHITECTURE,
        sdxl.ARCHITECTURE,
        flux.ARCHITECTURE,
        sd21.ARCHITECTURE,
        sd15.INPAINT,
        sd15.PIX2PIX,
        sdxl.INPAINT,
        sdxl.PIX2PIX,
        refiner.ARCHITECTURE,
        sd21.INPAINT,
        sd21.DEPTH,
        segmind.SSD_1B,
        segmind.VEGA,
        cascade.ARCHITECTURE,
        cascade.B,
        animatediff.ARCHITECTURE,
        qwen_image.ARCHITECTURE,
        qwen_image.LAYERED,
        z_image.ARCHITECTURE,
        lumina.ARCHITECTURE,
        sd3.LARGE,
        sd3.MEDIUM,
        sd3.ARCHITECTURE,
        flux.SCHNELL,
        flux.CONTROL,
        flux.FILL,
        chroma.ARCHITECTURE,
        flux2.ARCHITECTURE,
        flux2.FLUX2_KLEIN_4B,
        flux2.FLUX2_KLEIN_9B,
        wan.T2V_14B,
        wan.I2V_14B,
        wan.I2V_A14B,
        wan.VACE_14B,
        wan.T2V_1_3B,
        wan.VACE_1_3B,
        wan.TI2V_5B,
        loom_demo.ARCHITECTURE,
    ),
)

__all__ = ["ARCHITECTURES", "Architecture", "Component", "Location", "Module", "Place"]
