"""Pictures of the denoiser as pictures of Pillow."""

from __future__ import annotations

from PIL import Image
from torch import Tensor


def to_image(picture: Tensor) -> Image.Image:
    """(3, height, width) in [0, 1] -> RGB, rounded to the nearest of 256 levels."""
    levels = (picture.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().cpu()
    return Image.fromarray(levels.numpy(), "RGB")
