"""From the bytes of a file to the pixels of a view, whatever kind of picture it is.

The picture is turned the way its EXIF data says, laid on white where it is transparent, made RGB of 8 bits, scaled as
a whole, cut, mirrored, and its colours changed, in this order. A mask goes the same way and ends as a weight for each
latent pixel.
"""

from __future__ import annotations

import hashlib

import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from ...errors import CorruptFileError
from .picture import Picture, has_alpha, open_image, orientation, unreadable
from .sample import View

_TURN = Image.Transpose
# EXIF orientation -> what puts the picture upright, by the standard's table.
_UPRIGHT = {
    2: _TURN.FLIP_LEFT_RIGHT,
    3: _TURN.ROTATE_180,
    4: _TURN.FLIP_TOP_BOTTOM,
    5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_270,
    7: _TURN.TRANSVERSE,
    8: _TURN.ROTATE_90,
}
_WIDE = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # 16 bits, gray


def view_pixels(picture: Picture, view: View) -> Tensor:
    """(3, height, width) float32 in [-1, 1] of a view.

    Raises:
        CorruptFileError: the file is damaged, or is not the one that was there when the run began.
    """
    image = cut(on_white(decode(unchanged_bytes(picture), picture.name)), view)
    if view.jitter is not None:
        brightness, contrast, saturation = view.jitter
        image = ImageEnhance.Brightness(image).enhance(brightness)
        image = ImageEnhance.Contrast(image).enhance(contrast)
        image = ImageEnhance.Color(image).enhance(saturation)
    return _values(image, 3).div_(127.5).sub_(1.0)


def view_mask(picture: Picture, view: View, kind: str, floor: float, latent_step: int) -> Tensor | None:
    """Weight of each latent pixel, (1, height, width) float32: ``floor`` where the mask is black, 1 where it is white.

    Args:
        kind: ``"file"``, ``"alpha"``, or ``"auto"``: the file, or else the alpha channel.
        latent_step: pixels a latent; the weight is the mean over them.

    Returns:
        None where the picture has no such mask.
    """
    if kind != "alpha" and picture.mask is not None:
        mask = decode(picture.mask.read_bytes(), picture.mask.name).convert("L")
        if mask.size != picture.size:
            raise CorruptFileError(
                picture.mask.name,
                f"the mask is {mask.width}x{mask.height}, {picture.name} is {picture.size[0]}x{picture.size[1]}",
                "Make them the same size.",
            )
    elif kind != "file" and picture.alpha:
        mask = decode(unchanged_bytes(picture), picture.name).convert("RGBA").getchannel("A")
    else:
        return None
    pooled = torch.nn.functional.avg_pool2d(_values(cut(mask, view), 1).div_(255), latent_step)
    return floor + (1 - floor) * pooled


def unchanged_bytes(picture: Picture) -> bytes:
    """The bytes of the file, which must be those that the picture was found with: caches are keyed by them."""
    try:
        data = picture.path.read_bytes()
    except OSError as error:
        raise unreadable(picture.name, error.strerror or type(error).__name__) from None
    if hashlib.sha256(data).hexdigest() != picture.sha256:
        raise CorruptFileError(picture.name, "the picture was changed since the run began", "Start the run again.")
    return data


def decode(data: bytes, name: str) -> Image.Image:
    """An upright image, ``RGBA`` where it has transparency, ``RGB`` where not."""
    image = open_image(data, name)
    turn = orientation(image, data)
    try:
        image.load()
    except Exception as error:  # each format's decoder raises what it likes
        raise unreadable(name, str(error) or type(error).__name__) from None
    if image.mode in _WIDE:
        # 65535 / 257 is 255; Pillow's own conversion would cut off at 255.
        done = image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L").convert("RGB")
    elif image.mode == "F":
        raise unreadable(name, "its pixels are floating-point numbers, whose white nobody knows")
    else:
        done = image.convert("RGBA" if has_alpha(image) else "RGB")
    return done if turn == 1 else done.transpose(_UPRIGHT[turn])


def on_white(image: Image.Image) -> Image.Image:
    """``RGB``, with white behind what is transparent."""
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def cut(image: Image.Image, view: View) -> Image.Image:
    """Scale, crop and mirror."""
    if image.size != view.resized:
        image = image.resize(view.resized, Image.Resampling.LANCZOS)
    left, top = view.corner
    width, height = view.size
    if image.size != view.size:
        image = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(image) if view.flip else image


def _values(image: Image.Image, channels: int) -> Tensor:
    """(channels, height, width) float32 from 0 to 255."""
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(image.height, image.width, channels).permute(2, 0, 1).float().contiguous()
