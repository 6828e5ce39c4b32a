"""Naming schemes of LoRA files. One format is one file and one row; the format that explains most keys
wins, the order decides between equals."""

from __future__ import annotations

from ..registry import Registry
from . import diffusers, kohya
from .base import Format, Ignored, Located, NamedRole, Names

FORMATS: Registry[Format] = Registry("format", (kohya.FORMAT, diffusers.FORMAT))

__all__ = ["FORMATS", "Format", "Ignored", "Located", "NamedRole", "Names"]
