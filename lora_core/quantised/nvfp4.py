"""NVFP4: e2m1 numbers in blocks of 16 along a row, each with an e4m3 scale, and one float32 scale for all.

``W[r, c] = e2m1[r, c] * block_scale[r, c // 16] * scale_2``. Two numbers share a byte, the first in the upper half.
Rows and columns are padded to multiples of 16; block scales are in the order of ``swizzle``. Stored as ``weight``
(bytes, half the columns), ``weight_scale`` (block scales) and ``weight_scale_2``. Sources: NVIDIA's description of
NVFP4; ComfyUI's ``nvfp4`` layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..patching import rounded
from ..types import Shape
from . import scales, swizzle
from .base import Options, Parts, Scheme, blocks

GROUP = 16
LARGEST = 6.0
LARGEST_SCALE = 448.0
# The magnitudes of e2m1 by their code of three bits, and the sign above them.
MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
SIGN = 8


def stored(shape: Shape) -> Shape:
    """Padded to multiples of 16, two numbers a byte."""
    rows, columns = (-(-size // GROUP) * GROUP for size in shape)
    return rows, columns // 2


def plain(shape: Shape) -> Shape:
    """The numbers in a matrix of bytes."""
    return (*shape[:-1], shape[-1] * 2)


def fault(weight: Shape, shapes: Mapping[str, Shape], options: Options) -> str:
    """One scale per block of a matrix, padded, and one for all."""
    if len(weight) != 2 or plain(weight)[1] % GROUP:
        return f"a weight of {list(weight)} bytes, expected a matrix of whole blocks of {GROUP} numbers"
    room = swizzle.padded(weight[0], plain(weight)[1] // GROUP)
    if prod(shapes["scale"]) != prod(room) or prod(shapes["scale_2"]) != 1:
        found = [list(shapes[role]) for role in ("scale", "scale_2")]
        return f"scales of shapes {found}, expected {[list(room), []]}"
    return ""


def dequantise(parts: Parts, options: Options) -> torch.Tensor:
    """Each number times the scale of its block and the outer one, in float32."""
    packed = parts["weight"]
    scale = _scales(parts) * parts["scale_2"].float().reshape(())
    result = torch.empty(plain(tuple(packed.shape)), device=packed.device)
    for rows in blocks(result):
        result[rows] = _grouped(_unpacked(packed[rows])).mul_(scale[rows, :, None]).flatten(1)
    return result


def requantise(weight: torch.Tensor, parts: Parts, options: Options) -> dict[str, torch.Tensor]:
    """Each block with the scale that it had or with one that is made for it, whichever errs less.

    The made one takes the largest magnitude of the block to 6. The outer scale stays; where a block would not fit
    under it, it becomes the power of two times itself that has room, and block scales shrink by as much.
    """
    outer = parts["scale_2"].float().reshape(())
    peak = _grouped(weight).abs().amax(dim=-1)
    wider = scales.roomier(outer, peak.amax(), LARGEST * LARGEST_SCALE)
    kept = _scales(parts) * torch.where(wider > 0, outer / wider, torch.zeros_like(outer))
    made = peak / LARGEST / wider
    kept, made = (rounded(scale, torch.float8_e4m3fn) for scale in (kept, made))
    packed = torch.empty(parts["weight"].shape, dtype=torch.uint8, device=weight.device)
    chosen = torch.empty(kept.shape, dtype=torch.uint8, device=weight.device)
    for rows in blocks(weight):
        values = _grouped(weight[rows])
        tries = [_try(values, scale[rows], wider) for scale in (kept, made)]
        better = tries[0][1] <= tries[1][1]
        codes = torch.where(better[..., None], tries[0][0], tries[1][0]).flatten(1)
        packed[rows] = codes[:, 0::2] << 4 | codes[:, 1::2]
        chosen[rows] = torch.where(better, kept[rows].view(torch.uint8), made[rows].view(torch.uint8))
    return {"weight": packed, "scale": swizzle.swizzled(chosen), "scale_2": wider}


def _try(values: torch.Tensor, scale: torch.Tensor, outer: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of blocks under these scales, and their squared error per block."""
    whole = (scale.float() * outer)[..., None]
    ratio = torch.where(whole > 0, values / whole, torch.zeros_like(values))
    size = ratio.abs()
    codes = _nearest(size)
    # The magnitudes of _nearest's codes, worked out: looking them up takes much longer.
    error = torch.maximum(codes / 2, torch.maximum(codes - 2, codes * 2 - 8)).sub_(size)
    # Where the scale is zero so is the ratio, and all of the weight is lost.
    lost = torch.where(whole > 0, error * whole, values).square_().sum(dim=-1)
    return codes.to(torch.uint8) | torch.signbit(ratio).to(torch.uint8) * SIGN, lost


def _nearest(size: torch.Tensor) -> torch.Tensor:
    """Codes of the nearest magnitudes, ties to the even code, what is beyond 6 to 6.

    Steps are 1/2 up to 2, 1 up to 4 and 2 beyond. Each of the three roundings is right in its range and too large
    elsewhere; and torch, too, rounds halves to even.
    """
    size = size.clamp(max=LARGEST)
    return torch.minimum((size * 2).round_(), torch.minimum(size.round().add_(2), (size / 2).round_().add_(4)))


def _values(codes: torch.Tensor) -> torch.Tensor:
    table = torch.tensor([*MAGNITUDES, *(-value for value in MAGNITUDES)], device=codes.device)
    return table[codes.int()]


def _unpacked(packed: torch.Tensor) -> torch.Tensor:
    return _values(torch.stack((packed >> 4, packed & 15), dim=-1).flatten(1))


def _grouped(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.view(len(matrix), -1, GROUP)


def _scales(parts: Parts) -> torch.Tensor:
    """float32 (rows, blocks)."""
    rows, half = parts["weight"].shape
    bits = swizzle.unswizzled(parts["scale"].view(torch.uint8), rows, 2 * half // GROUP).contiguous()
    return bits.view(torch.float8_e4m3fn).float()


SCHEME = Scheme(
    name="nvfp4",
    title="NVFP4",
    dtypes=frozenset({"U8"}),
    scales=frozenset({"scale", "scale_2"}),
    stored=stored,
    plain=plain,
    fault=fault,
    dequantise=dequantise,
    requantise=requantise,
)
