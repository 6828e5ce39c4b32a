"""Quantised weights of a checkpoint: put back patched in their own scheme, or written as plain numbers.

Both go through ``W`` in float32: dequantise, patch, and then requantise or round, once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from ..errors import ConfigError
from ..quantised import METADATA_KEY, Layer, Quantised, Scheme, dequantised, requantised
from ..quantised.base import Parts, blocks
from .source import Checkpoint, Piece, Stored

Watch = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
Patched = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Unpacked(Stored):
    """A quantised weight as the float32 that it stands for."""

    layer: Layer
    scheme: Scheme
    parts: Mapping[str, Stored]

    @property
    def whole(self) -> None:
        """It has to be computed."""
        return

    def load(self) -> torch.Tensor:
        """Read its parts and put them together."""
        return dequantised(self.layer, self.scheme, {role: stored.load() for role, stored in self.parts.items()})


def unpacked(checkpoint: Checkpoint, key: str) -> Unpacked:
    """The quantised weight under this key.

    Raises:
        ConfigError: nothing here knows its scheme.
    """
    layer = checkpoint.quantised.layers[key]
    if layer.scheme is None:
        fault = (
            f"{key} is quantised in a way that cannot be patched: {layer.format}. Merge into the checkpoint in fp32, "
            "fp16, bf16 or fp8 that it was made from"
        )
        raise ConfigError(checkpoint.label, [fault])
    parts = {role: checkpoint.tensors[name] for role, name in layer.keys.items()}
    pieces: tuple[Piece, ...] = tuple(piece for stored in parts.values() for piece in stored.pieces)
    return Unpacked(layer.shape, "F32", pieces, layer, layer.scheme, parts)


def without_quantisation(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with float32 weights, without scales and what else is true of quantised ones only.

    Raises:
        ConfigError: nothing here knows the scheme of a weight.
    """
    layers = checkpoint.quantised.layers
    gone = {key for layer in layers.values() for key in (*layer.keys.values(), *layer.notes)}
    gone |= checkpoint.quantised.markers
    tensors = {
        key: unpacked(checkpoint, key) if key in layers else stored
        for key, stored in checkpoint.tensors.items()
        if key in layers or key not in gone
    }
    metadata = {key: text for key, text in checkpoint.metadata.items() if key != METADATA_KEY}
    return replace(checkpoint, tensors=tensors, metadata=metadata, quantised=Quantised())


class Requantised:
    """The parts of one patched weight: computed once, when the first of them is asked for."""

    def __init__(self, weight: Unpacked, patch: Patched, watch: Watch) -> None:
        self._weight, self._patch, self._watch = weight, patch, watch
        self._lock = threading.Lock()
        self._left: dict[str, torch.Tensor] | None = None

    def take(self, role: str) -> torch.Tensor:
        """One part, to be asked for once: it is not kept."""
        with self._lock:
            if self._left is None:
                self._left = dict(self._compute())
            return self._left.pop(role)

    def _compute(self) -> Parts:
        weight = self._weight
        parts = {role: stored.load() for role, stored in weight.parts.items()}
        before = dequantised(weight.layer, weight.scheme, parts)
        exact = self._patch(before)
        new = {**parts, **requantised(weight.layer, weight.scheme, exact.to(before.device), parts)}
        after = dequantised(weight.layer, weight.scheme, new)
        for rows in blocks(exact):
            self._watch(before[rows], exact[rows], after[rows])
        return new
