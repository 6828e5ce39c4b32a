"""fp8 with scales: ``W = q * scale``, q in e4m3 or e5m2, one scale per weight or per row.

Stored as ``<layer>.weight`` and ``<layer>.weight_scale``, in older files ``<layer>.scale_weight``. Sources: key
inventories of real files (Flux, Flux2, Z-Image, Anima); ComfyUI's loader, which takes both names.
"""

from __future__ import annotations

import torch

from ..patching import rounded
from . import scales
from .base import Options, Parts, Scheme, blocks, same


def dequantise(parts: Parts, options: Options) -> torch.Tensor:
    """``q * scale`` in float32."""
    return parts["weight"].float() * scales.broadcast(parts["scale"], parts["weight"])


def requantise(weight: torch.Tensor, parts: Parts, options: Options) -> dict[str, torch.Tensor]:
    """``q = round(W / scale)`` with the scale as it was, or twice (four times, ...) it where W would not fit."""
    stored = parts["weight"].dtype
    scale = scales.broadcast(parts["scale"], weight)
    scale = scales.roomier(scale, scales.peaks(weight, scale), torch.finfo(stored).max)
    packed = torch.empty(weight.shape, dtype=stored, device=weight.device)
    for rows in blocks(weight):
        divisor = scale if scale.dim() == 0 else scale[rows]
        packed[rows] = rounded(weight[rows] / divisor, stored)
    return {"weight": packed, "scale": scale}


def _scheme(name: str, title: str, dtype: str) -> Scheme:
    return Scheme(
        name, title, frozenset({dtype}), frozenset({"scale"}), same, same, scales.fault, dequantise, requantise
    )


E4M3 = _scheme("float8_e4m3fn", "scaled fp8 (e4m3)", "F8_E4M3")
E5M2 = _scheme("float8_e5m2", "scaled fp8 (e5m2)", "F8_E5M2")
SCHEMES = (E4M3, E5M2)
