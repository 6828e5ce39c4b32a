"""Adapter types. One type is one file and one row; the type that uses most of a module's tensors wins,
the order decides between equals."""

from __future__ import annotations

from ..registry import Registry
from . import (
    adalora,
    boft,
    diag_oft,
    dora,
    full,
    glora,
    hra,
    ia3,
    kohya_oft,
    loha,
    lokr,
    lora,
    norm,
    oft2,
    oft_diag,
    peft_boft,
    peft_oft,
    replacement,
    split,
    wider,
)
from .base import AdapterType, AdditiveDelta, Delta, Factors, Group, LowRankDelta

ADAPTER_TYPES: Registry[AdapterType] = Registry(
    "adapter type",
    (
        *dora.TYPES,
        lora.TYPE,
        adalora.TYPE,
        split.TYPE,
        wider.TYPE,
        wider.BFL_TYPE,
        loha.TYPE,
        lokr.TYPE,
        glora.TYPE,
        ia3.TYPE,
        ia3.PEFT_TYPE,
        full.TYPE,
        full.BIAS_TYPE,
        full.MODULATION_TYPE,
        norm.TYPE,
        norm.BIAS_TYPE,
        replacement.TYPE,
        diag_oft.TYPE,
        boft.TYPE,
        oft_diag.TYPE,
        kohya_oft.TYPE,
        oft2.TYPE,
        peft_oft.TYPE,
        peft_oft.OLD_TYPE,
        peft_boft.TYPE,
        hra.TYPE,
    ),
)

__all__ = ["ADAPTER_TYPES", "AdapterType", "AdditiveDelta", "Delta", "Factors", "Group", "LowRankDelta"]
