"""A picture of where a LoRA acts: one bar per block, as long as the norm of what it adds (``lora_core.norms``)."""

from __future__ import annotations

from typing import Any

import torch

ROW, MARGIN, LABEL, BAR, NUMBER = 22, 12, 130, 380, 120


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
