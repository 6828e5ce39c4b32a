"""Adapter types. One type is one file and one row; the type that uses most of a module's tensors wins,
the order decides between equals."""

from __future__ import annotations

from ..registry import Registry
from . import boft, diag_oft, dora, full, loha, lokr, lora, norm
from .base import AdapterType, AdditiveDelta, Delta, Factors, Group

ADAPTER_TYPES: Registry[AdapterType] = Registry(
    "adapter type",
    (
        *dora.TYPES,
        lora.TYPE,
        loha.TYPE,
        lokr.TYPE,
        full.TYPE,
        full.BIAS_TYPE,
        norm.TYPE,
        diag_oft.TYPE,
        boft.TYPE,
    ),
)

__all__ = ["ADAPTER_TYPES", "AdapterType", "AdditiveDelta", "Delta", "Factors", "Group"]
