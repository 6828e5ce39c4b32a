"""Tensors of a single file whose names and cuts are not the checkpoint's, written back as they were.

A transformer in diffusers' names has q, k and v apart, and a patch is one of the fused matrix: the parts are put
together, patched as one, and each goes back to where it came from. The numbers are those of the fused file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import torch

from ..architectures.spec import sliced_shape
from ..io.dtypes import TORCH_DTYPES
from ..patching import rounded
from ..types import Shape
from .source import Piece, Stored

Compute = Callable[[], torch.Tensor]


class Shared:
    """A tensor of the checkpoint that is computed once, when the first part is asked for, and kept until the last.

    Args:
        compute: makes it.
        uses: how often a part is asked for.
    """

    def __init__(self, compute: Compute, uses: int) -> None:
        self._compute, self._left = compute, uses
        self._lock = threading.Lock()
        self._tensor: torch.Tensor | None = None

    def take(self, piece: Piece) -> torch.Tensor:
        """The part that this piece is, laid out as in its source."""
        with self._lock:
            tensor = self._compute() if self._tensor is None else self._tensor
            self._left -= 1
            self._tensor = tensor if self._left else None
        part = tensor if piece.slice is None else tensor.narrow(*piece.slice)
        return part.T if piece.transposed else part


def pieces_by_ref(tensors: Mapping[str, Stored]) -> dict[str, list[tuple[str, Piece]]]:
    """Name in the source -> the checkpoint's keys that it takes part in, with the pieces."""
    found: dict[str, list[tuple[str, Piece]]] = {}
    for key, stored in tensors.items():
        for piece in stored.pieces:
            found.setdefault(piece.ref.name, []).append((key, piece))
    return found


def shape_in_source(piece: Piece, before: Shape, after: Shape) -> Shape:
    """The shape of a source's tensor after a patch that may give the checkpoint's tensor more inputs."""
    if before == after:
        return piece.ref.shape
    return after if piece.slice is None else sliced_shape(after, piece.slice)


def joined(shape: Shape, dtype: str, parts: list[tuple[Piece, Shared]]) -> torch.Tensor:
    """The source's tensor, put together of the parts of it, in its own shape and this dtype."""
    kind = TORCH_DTYPES[dtype]
    if len(parts) == 1 and parts[0][0].rows is None:
        piece, shared = parts[0]
        return _as(shared.take(piece).reshape(shape), kind)
    tensor = torch.empty(shape, dtype=kind)
    for piece, shared in parts:
        into = tensor if piece.rows is None else tensor.narrow(*piece.rows)
        into.copy_(_as(shared.take(piece).reshape(into.shape), kind))
    return tensor


def _as(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Rounded, where that is not done yet."""
    return values if values.dtype == dtype else rounded(values, dtype)
