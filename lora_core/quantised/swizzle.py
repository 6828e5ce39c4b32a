"""The order in which scales of blocks lie in a file: that of NVIDIA's tensor cores.

A matrix of scales is padded to multiples of (128, 4) and cut into tiles of that size, which follow each other row by
row. In a tile the scale of row ``32 * a + b`` and column ``d`` is at ``16 * b + 4 * a + d``. Source: NVIDIA's cuBLAS
documentation, "1D block scaling factors layout".
"""

from __future__ import annotations

import torch

TILE = (128, 4)


def padded(rows: int, columns: int) -> tuple[int, int]:
    """Shape of the matrix with its padding."""
    return -(-rows // TILE[0]) * TILE[0], -(-columns // TILE[1]) * TILE[1]


def swizzled(scales: torch.Tensor) -> torch.Tensor:
    """(rows, columns) of bytes -> the same in tiles, of shape ``padded``; padding is zero."""
    rows, columns = padded(*scales.shape)
    whole = torch.zeros(rows, columns, dtype=scales.dtype, device=scales.device)
    whole[: scales.shape[0], : scales.shape[1]] = scales
    tiles = whole.view(rows // 128, 4, 32, columns // 4, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(rows, columns)


def unswizzled(stored: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The inverse: bytes in tiles -> (rows, columns)."""
    high, wide = padded(rows, columns)
    tiles = stored.reshape(high // 128, wide // 4, 32, 4, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(high, wide)[:rows, :columns]
