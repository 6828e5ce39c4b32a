"""A picture of where a LoRA acts: one bar per block, as long as the norm of what it adds there.

The norm of a block is that of all its differences together at strength 1,
``sqrt(sum over its modules of |scale * up @ down|^2)`` (Frobenius). It is computed from the factors,
``|up @ down|^2 = sum((up^T up) * (down down^T))``, without making a difference of full size. A DoRA counts with its
direction, before the magnitudes.
"""

from __future__ import annotations

from typing import Any

import torch

from ..lora_core import Adapter
from ..lora_core.adapters import Delta
from ..lora_core.architectures import ARCHITECTURES
from ..lora_core.types import DENOISER

ROW, MARGIN, LABEL, BAR, NUMBER = 22, 12, 130, 380, 120


def block_norms(adapter: Adapter) -> dict[str, float]:
    """Block (of the denoiser), or the name of a text encoder -> norm, in the order of the model."""
    architecture = ARCHITECTURES.get(adapter.architecture)
    squares: dict[str, float] = {}
    for target, delta in adapter.deltas:
        component = target.module.component
        name = architecture.block(target.module) if component == DENOISER else component
        shape = architecture.shape(target)
        assert shape is not None  # it was mapped onto this architecture
        squares[name] = squares.get(name, 0.0) + _square(delta, shape)
    order = [*architecture.blocks, *(component.name for component in architecture.components)]
    return {name: squares[name] ** 0.5 for name in order if name in squares}


def _square(delta: Delta, shape: tuple[int, ...]) -> float:
    delta = getattr(delta, "direction", delta)
    factors = delta.factors()
    if factors is None:
        return float(delta.apply(torch.zeros(shape), 1.0).square().sum(dtype=torch.float64))
    up, down = factors.up.double(), factors.down.double()
    return max(0.0, factors.scale**2 * float(((up.T @ up) * (down @ down.T)).sum()))


def draw(title: str, norms: dict[str, float]) -> Any:
    """The bars as an IMAGE of the host: (1, height, width, 3), 0 to 1."""
    import numpy
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(14)
    width = 2 * MARGIN + LABEL + BAR + NUMBER
    picture = Image.new("RGB", (width, 2 * MARGIN + ROW * (len(norms) + 2)), "#1e1e24")
    pen = ImageDraw.Draw(picture)
    pen.text((MARGIN, MARGIN), title, fill="#ffffff", font=font)
    pen.text((MARGIN, MARGIN + ROW), "norm of the change per block, at strength 1", fill="#9a9aa6", font=font)
    largest = max(norms.values(), default=0.0) or 1.0
    for row, (name, norm) in enumerate(norms.items(), 2):
        top = MARGIN + row * ROW
        pen.text((MARGIN, top), name, fill="#d8d8e0", font=font)
        left = MARGIN + LABEL
        pen.rectangle((left, top + 3, left + BAR * norm / largest, top + ROW - 5), fill="#5b8def")
        pen.text((left + BAR + 8, top), f"{norm:.4g}", fill="#d8d8e0", font=font)
    return torch.from_numpy(numpy.asarray(picture).astype(numpy.float32) / 255.0)[None]
