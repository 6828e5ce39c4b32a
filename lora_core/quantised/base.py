"""What a way of quantising weights is, and one weight that a file keeps in that way.

A scheme knows how a weight of float32 lies in a file as several tensors, the *parts*, and back. Parts have roles:
``weight`` the packed numbers, ``scale`` what they are multiplied with, ``scale_2`` a second, outer factor, and
``smooth`` a factor per column that the layer multiplies its input with (``pre_quant_scale``), so that the weight
without quantisation is ``dequantised * smooth``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from ..types import Shape

Parts: TypeAlias = "Mapping[str, torch.Tensor]"
Options: TypeAlias = "Mapping[str, object]"

# Numbers that are worked on at once: float32 of them stays in a core's cache.
BLOCK = 1 << 19


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way of quantising weights; a row of ``SCHEMES``.

    Args:
        name: the host's name of it in ``comfy_quant``.
        title: for people.
        dtypes: header names of the dtypes that ``weight`` may have.
        scales: roles that have to be there besides ``weight``.
        stored: shape of a parameter -> shape of its ``weight`` part, padding and packing included.
        plain: shape of a ``weight`` part -> shape of the numbers in it, padding included.
        fault: (shape of ``weight``, role -> shape, options) -> what is wrong with them, "" for nothing.
        dequantise: (parts, options) -> float32 of shape ``plain``.
        requantise: (float32 of shape ``plain``, parts as they were, options) -> the parts that change. Scales are
            kept where the new weight fits into their range, so that what no patch changes keeps its bits.
    """

    name: str
    title: str
    dtypes: frozenset[str]
    scales: frozenset[str]
    stored: Callable[[Shape], Shape]
    plain: Callable[[Shape], Shape]
    fault: Callable[[Shape, Mapping[str, Shape], Options], str]
    dequantise: Callable[[Parts, Options], torch.Tensor]
    requantise: Callable[[torch.Tensor, Parts, Options], dict[str, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Layer:
    """One quantised weight of a file.

    Args:
        keys: role -> key, ``weight`` and the scales.
        notes: keys beside them that are true of a quantised weight only: its format, the scale of its input.
        format: name of the scheme, or what a file says where no scheme is known.
        scheme: None where it is not known: such a weight can be copied, and nothing else.
        shape: of the parameter, without packing and padding.
        options: what the file says besides of the format.
    """

    keys: Mapping[str, str]
    notes: tuple[str, ...]
    format: str
    scheme: Scheme | None
    shape: Shape
    options: Options

    def holds(self, shape: Shape, stored: Shape) -> bool:
        """Whether a ``weight`` part of shape ``stored`` can be a parameter of this shape."""
        if self.scheme is None:
            return True
        return tuple(shape) == self.shape or (len(shape) == len(stored) and self.scheme.stored(shape) == stored)


def dequantised(layer: Layer, scheme: Scheme, parts: Parts) -> torch.Tensor:
    """The weight as the layer without quantisation has it: float32 of ``layer.shape``.

    ``W = dequantise(parts)``, without padding, times ``smooth`` where there is one.
    """
    weight = scheme.dequantise(parts, layer.options)
    weight = weight[tuple(slice(0, size) for size in layer.shape)]
    return weight * parts["smooth"].float().reshape(-1) if "smooth" in parts else weight


def requantised(layer: Layer, scheme: Scheme, weight: torch.Tensor, parts: Parts) -> dict[str, torch.Tensor]:
    """Parts of the patched weight, with the shapes and dtypes that they had.

    Args:
        layer, scheme: how it is stored.
        weight: float32 of ``layer.shape``, as ``dequantised`` gives it.
        parts: as they were.
    """
    if "smooth" in parts:
        smooth = parts["smooth"].float().reshape(-1)
        weight = torch.where(smooth == 0, torch.zeros_like(weight), weight / smooth)
    room = scheme.plain(tuple(parts["weight"].shape))
    margins = [edge for have, want in zip(weight.shape[::-1], room[::-1], strict=True) for edge in (0, want - have)]
    if any(margins):
        weight = torch.nn.functional.pad(weight, margins)
    new = scheme.requantise(weight.contiguous(), parts, layer.options)
    return {role: like(tensor, parts[role]) for role, tensor in new.items()}


def like(tensor: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """The tensor in shape and dtype of the one that it replaces; bits are taken over where one of them is bytes."""
    if torch.uint8 in (tensor.dtype, before.dtype):
        return tensor.view(before.dtype).reshape(before.shape)
    return tensor.to(before.dtype).reshape(before.shape)


def blocks(matrix: torch.Tensor) -> Iterator[slice]:
    """Rows of a weight, as many at once as fit a core's cache."""
    height = max(1, BLOCK // max(1, matrix[0].numel())) if len(matrix) else 1
    return (slice(start, start + height) for start in range(0, len(matrix), height))


def same(shape: Shape) -> Shape:
    """Of schemes without packing and padding."""
    return shape
