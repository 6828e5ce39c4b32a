"""Quantised weights of the host's models: which they are, and what rounding them anew takes from a LoRA.

The host dequantises a weight, has it patched, and quantises it again, rounding each number up or down at random. It
does so when it loads the model, after the report is written; so the report estimates it: of a few rows of each weight,
how large their rounding error will be, and how large the change is that a LoRA makes to them. Weights that the host
streams from main memory at each step are patched in the number type of the layer and lose less; those of GGUF files
are never rounded back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import torch

from ..lora_core.io import TensorDict
from ..lora_core.io.dtypes import FP8, NAMES
from ..lora_core.merge.rounding import Rounding, rounding_json
from ..lora_core.patching import Patch
from ..lora_core.quantised import Layer, dequantised, find_quantised
from ..lora_core.quantised.swizzle import TILE
from ..lora_core.types import Shape

ROWS = 16
# |rounded - W| / |W| where numbers are rounded at random, whatever the weight; tests/host/test_quantised.py measures
# it. For e4m3: steps of 2^-3, errors of sqrt(1/6) steps, and 0.54 the mean square of 2^exponent / number.
ERROR = {"float8_e4m3fn": 0.037, "float8_e5m2": 0.074, "mxfp8": 0.037, "nvfp4": 0.17, "convrot_w4a4": 0.17}
TILED = ("mxfp8", "nvfp4")
GGUF_FLOATS = ("F32", "F16", "BF16")
PLAIN = {dtype: str(dtype).removeprefix("torch.") for dtype in FP8}
NOTE = (
    "ComfyUI rounds the patched weights of this model again when it loads them, at random up or down; the numbers are "
    "estimates from {rows} rows of each weight: of_weight how much of it, of_change how much of what this LoRA does. "
    "Merge to Checkpoint measures them, and rounds to nearest."
)


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of a weight in float32, and the root mean square of their rounding error."""

    rows: torch.Tensor
    error: float


class QuantisedWeights:
    """Of a model's weights those that are quantised: ``formats`` says how, host key -> name."""

    def __init__(self, modules: Iterable[Any]) -> None:
        self._owners: dict[str, Any] = {}
        self.formats: dict[str, str] = {}
        for module in modules:
            for prefix, owner in module.named_modules():
                weight = owner._parameters.get("weight")
                if weight is not None and (format := _format(owner, weight)):
                    key = f"{prefix}.weight"
                    self._owners[key], self.formats[key] = owner, format

    def smooth(self, key: str) -> torch.Tensor | None:
        """What a layer multiplies its input with, one number per column of its weight; None where it does not."""
        return getattr(self._owners.get(key), "pre_quant_scale", None)

    def report(self, patches: Mapping[str, Patch], file: str) -> dict[str, Any]:
        """What the report of one LoRA says of this; nothing where no quantised weight is patched by it.

        Args:
            patches: host key -> patch.
            file: of the LoRA, as its parts have it.
        """
        own = {
            key: patch
            for key, patch in patches.items()
            if key in self.formats and any(part.file == file for part in patch.parts)
        }
        if not own:
            return {}
        rounding = {key: found for key, patch in own.items() if (found := self._rounding(key, patch, file))}
        counted = Counter(self.formats[key] for key in own)
        said = {**rounding_json(rounding), "note": NOTE.format(rows=ROWS)} if rounding else {}
        return {"quantised": dict(counted), "rounding": said}

    def _rounding(self, key: str, patch: Patch, file: str) -> Rounding | None:
        """None for changes that are no products of factors, and for weights that are not rounded back."""
        own = [part for part in patch.parts if part.file == file]
        place = own[0].slice  # of q, k and v in one matrix the first speaks for all
        start = place.start if place is not None and place.dim == 0 else 0
        sample = self._sample(key, start, patch.shape)
        if sample is None:
            return None
        change = torch.zeros(len(sample.rows), sample.rows[0].numel())
        for part in own:
            factors = part.delta.factors()
            if factors is None or (place is not None and place.dim != 0):
                return None
            if part.slice != place:
                continue
            rows = factors.up[: len(change)].float() @ factors.down.float()
            change[: len(rows)] += part.strength * factors.scale * rows
        weight, moved = (float(values.square().mean().sqrt()) for values in (sample.rows, change))
        return Rounding(sample.error / weight if weight else 0.0, sample.error / moved if moved else None)

    def _sample(self, key: str, start: int, shape: Shape) -> Sample | None:
        """Some rows from ``start`` of a weight of this shape; None where they cannot be read."""
        owner, format = self._owners[key], self.formats[key]
        if owner.weight.device.type == "meta":
            return None
        if owner.weight.dtype in FP8 and format in PLAIN.values():
            return _sample(owner.weight[start : start + ROWS].float(), format)
        layer = _layer(owner)
        if layer is None or layer.scheme is None:
            return None
        # Scales of blocks lie in tiles of 128 rows: the rows begin with a tile, and end in it.
        first = start // TILE[0] * TILE[0]
        last = min(start + ROWS, first + TILE[0], shape[0])

        def cut(role: str, part: torch.Tensor) -> torch.Tensor:
            if part.numel() == 1 or role == "smooth":
                return part.cpu()
            return part[first : first + TILE[0] if role == "scale" and format in TILED else last].cpu()

        state = owner.state_dict()
        parts = {role: cut(role, state[name]) for role, name in layer.keys.items()}
        rows = dequantised(replace(layer, shape=(last - first, *shape[1:])), layer.scheme, parts)[start - first :]
        step = float(parts["scale"].float().square().mean().sqrt()) if format == "int8_tensorwise" else None
        return _sample(rows, format, step)


def _sample(rows: torch.Tensor, format: str, step: float | None = None) -> Sample:
    """Even steps have an error of their own; others one in proportion to the numbers."""
    if step is not None:
        return Sample(rows, step / sqrt(6))
    return Sample(rows, ERROR[format] * float(rows.square().mean().sqrt()))


def _format(owner: Any, weight: Any) -> str:
    """The name of a weight's quantisation, "" for plain numbers."""
    if getattr(weight, "_layout_cls", None) is not None:
        return getattr(owner, "quant_format", None) or "quantised"
    kind = getattr(getattr(weight, "tensor_type", None), "name", "")
    if kind and kind not in GGUF_FLOATS:
        return f"GGUF {kind}"
    return PLAIN.get(weight.dtype, "")


def _layer(owner: Any) -> Layer | None:
    """How a layer of the host would be written to a file, which is how the library reads it."""
    state = {f"layer.{name}": tensor for name, tensor in owner.state_dict().items() if tensor.dtype in NAMES}
    found = find_quantised(TensorDict(state), {}, "MODEL").layers.get("layer.weight")
    if found is None:
        return None
    keys = {role: name.removeprefix("layer.") for role, name in found.keys.items()}
    return replace(found, keys=keys)
