"""Which weights of a file are quantised, and how: from the names and shapes of its tensors, and what it says itself.

A file says it per layer in ``<layer>.comfy_quant``, JSON as bytes, or for all layers in its metadata under
``_quantization_metadata``; older files have a tensor ``scaled_fp8`` and scales beside the weights. Where nothing is
said, dtype and scales decide. Sources: ComfyUI's loader; key inventories of real files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import torch

from ..errors import CorruptFileError
from ..io.dtypes import FLOATS, TORCH_DTYPES
from ..types import Shape
from ..untrusted import json_object, mapping
from .base import Layer, Options, Scheme
from .table import SCHEMES

METADATA_KEY = "_quantization_metadata"

# Last part of a key -> what it is in its layer. ``note``: true of a quantised weight only.
ROLES = {
    "weight": "weight",
    "weight_scale": "scale",
    "scale_weight": "scale",
    "weight_scale_2": "scale_2",
    "pre_quant_scale": "smooth",
    "comfy_quant": "said",
    "input_scale": "note",
    "scale_input": "note",
}
# Of files that keep their weights in a way that nothing here computes with -> its name.
FOREIGN = {
    "weight_scale_inv": "fp8 in square blocks",
    "weight.absmax": "bitsandbytes 4 bit",
    "weight.quant_map": "bitsandbytes 4 bit",
    "SCB": "bitsandbytes int8",
    "weight_packed": "packed integers",
    "weight_zero_point": "integers with zero points",
}
# A tensor of this name, with or without prefix, says that a file has scales. It holds no number.
MARKER = "scaled_fp8"

_LAST_RESORT = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "I8": "int8_tensorwise", "U8": "nvfp4"}
# ``comfy_quant`` is some sixty bytes; what is longer is none.
_MAX_SAID = 10_000


class Stored(Protocol):
    """A tensor of a file, not yet read."""

    @property
    def shape(self) -> Shape: ...
    @property
    def dtype(self) -> str: ...
    def load(self) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class Quantised:
    """The quantised weights of a file.

    Args:
        layers: key of the weight -> how it is stored.
        markers: keys that say so of the whole file.
    """

    layers: Mapping[str, Layer] = field(default_factory=dict[str, Layer])
    markers: frozenset[str] = frozenset()


def find_quantised(tensors: Mapping[str, Stored], metadata: Mapping[str, str], label: str) -> Quantised:
    """Look through a file's header; of tensors only ``comfy_quant`` are read.

    Args:
        tensors: key -> tensor.
        metadata: of the file.
        label: its name, for errors.

    Raises:
        CorruptFileError: what the file says of its layers cannot be read.
    """
    groups = _groups(tensors)
    said = _said_in_metadata(metadata, label)
    layers = (_layer(name, roles, tensors, said.get(name), label) for name, roles in groups.items())
    markers = frozenset(key for key in tensors if key.rpartition(".")[2] == MARKER)
    return Quantised({layer.keys["weight"]: layer for layer in layers if layer}, markers)


def _groups(tensors: Mapping[str, Stored]) -> dict[str, dict[str, list[str]]]:
    """Layer -> role -> keys, of all layers with a weight."""
    groups: dict[str, dict[str, list[str]]] = {}
    for key in tensors:
        layer, _, last = key.rpartition(".")
        if last in ROLES:
            groups.setdefault(layer, {}).setdefault(ROLES[last], []).append(key)
        for ending, foreign in FOREIGN.items():
            if key.endswith(f".{ending}") or f".{ending}." in key:
                groups.setdefault(key[: key.rindex(f".{ending}")], {}).setdefault(f"foreign:{foreign}", []).append(key)
    return {layer: roles for layer, roles in groups.items() if "weight" in roles}


def _layer(
    name: str, roles: Mapping[str, list[str]], tensors: Mapping[str, Stored], said: Options | None, label: str
) -> Layer | None:
    weight = tensors[roles["weight"][0]]
    if "said" in roles and said is None:
        said = _said_in_tensor(roles["said"][0], tensors[roles["said"][0]], label)
    foreign = next((role.partition(":")[2] for role in roles if role.startswith("foreign:")), "")
    number = TORCH_DTYPES.get(weight.dtype) in FLOATS
    if said is None and not foreign and number and not ("scale" in roles and weight.dtype.startswith("F8")):
        return None
    options = {**mapping((said or {}).get("params")), **(said or {})}
    format = foreign or str(options.get("format") or _guess(weight, roles, tensors))
    keys = {role: roles[role][0] for role in ("weight", "scale", "scale_2", "smooth") if role in roles}
    notes = [key for role, found in roles.items() if role in ("said", "note") for key in found]
    scheme = SCHEMES.get(format) if format in SCHEMES else None
    fault = _fault(scheme, weight, {role: tensors[key].shape for role, key in keys.items()}, options) if scheme else ""
    if scheme is None or fault:
        return Layer(keys, tuple(notes), f"{format} ({fault})" if fault else format, None, weight.shape, options)
    return Layer(keys, tuple(notes), format, scheme, scheme.plain(weight.shape), options)


def _guess(weight: Stored, roles: Mapping[str, list[str]], tensors: Mapping[str, Stored]) -> str:
    """The scheme of a layer that does not say it."""
    if "scale" not in roles:
        return f"{weight.dtype} without scales"
    scale = tensors[roles["scale"][0]]
    if weight.dtype == "F8_E4M3" and scale.dtype in ("F8_E8M0", "U8"):
        return "mxfp8"
    return _LAST_RESORT.get(weight.dtype, weight.dtype)


def _fault(scheme: Scheme, weight: Stored, shapes: Mapping[str, Shape], options: Options) -> str:
    """What keeps the tensors of a layer from being what its format says, "" for nothing."""
    if missing := scheme.scales - set(shapes):
        return f"lacks {', '.join(sorted(missing))}"
    if weight.dtype not in scheme.dtypes:
        return f"its weight is {weight.dtype}"
    if not weight.shape or 0 in weight.shape:
        return "its weight is empty"
    if fault := scheme.fault(weight.shape, shapes, options):
        return fault
    smooth = shapes.get("smooth", ())
    if smooth and scheme.stored((*scheme.plain(weight.shape)[:-1], prod(smooth))) != weight.shape:
        return f"a factor on its input of shape {list(smooth)}"
    return ""


def _said_in_metadata(metadata: Mapping[str, str], label: str) -> Mapping[str, Options]:
    text = metadata.get(METADATA_KEY)
    if text is None:
        return {}
    layers = mapping(json_object(text, f"{label}: {METADATA_KEY}").get("layers"))
    return {name: mapping(options) for name, options in layers.items()}


def _said_in_tensor(key: str, stored: Stored, label: str) -> Options:
    size = stored.shape[0] if len(stored.shape) == 1 else -1
    if stored.dtype != "U8" or not 0 <= size <= _MAX_SAID:
        raise CorruptFileError(label, f"{key} is {stored.dtype} {list(stored.shape)}, expected bytes of JSON")
    text = stored.load().numpy().tobytes().decode("utf-8", "replace")
    return json_object(text, f"{label}: {key}")
