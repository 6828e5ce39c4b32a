"""Model families. One family is one file and one row; the order decides between equal fits."""

from __future__ import annotations

from ..registry import Registry
from . import loom_demo, sd15, sdxl
from .spec import Architecture, Component, Location, Module, Place

ARCHITECTURES: Registry[Architecture] = Registry(
    "architecture", (sd15.ARCHITECTURE, sdxl.ARCHITECTURE, loom_demo.ARCHITECTURE)
)

__all__ = ["ARCHITECTURES", "Architecture", "Component", "Location", "Module", "Place"]
