"""Naming schemes of LoRA files. One format is one file and one row; the format that explains most keys
wins, between equals the one whose names fit, then the order."""

from __future__ import annotations

from ..registry import Registry
from . import cloneofsimo, comfy, diffusers, kohya, omi, original, peft, xlabs
from .base import Embedded, Format, Found, Ignored, Located, NamedRole, Names
from .writing import Writing

FORMATS: Registry[Format] = Registry(
    "format",
    (
        kohya.FORMAT,
        diffusers.FORMAT,
        comfy.FORMAT,
        peft.FORMAT,
        xlabs.FORMAT,
        cloneofsimo.FORMAT,
        original.FORMAT,
        omi.FORMAT,
    ),
)

__all__ = ["FORMATS", "Embedded", "Format", "Found", "Ignored", "Located", "NamedRole", "Names", "Writing"]
