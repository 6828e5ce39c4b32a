"""Names and shapes of the VAE of Stable Diffusion and Flux, in the checkpoints' own layout."""

from __future__ import annotations

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

LEVELS = (1, 2, 4, 4)  # widths, in units of the first
ENCODER, DECODER = 128, 32  # first widths: the host has the encoder in one size, and reads the decoder's off the file


def vae_shapes(channels: int, prefix: str = "") -> Shapes:
    """
    Args:
        channels: of the latent. With 4 there are the two convolutions next to it that newer VAEs do without.
        prefix: of all names.
    """
    found = _encoder(channels) | _decoder(channels)
    if channels == 4:
        found |= _conv("quant_conv", 2 * channels, 2 * channels, 1) | _conv("post_quant_conv", channels, channels, 1)
    return {prefix + name: shape for name, shape in found.items()}


def _encoder(channels: int) -> Shapes:
    found = _conv("encoder.conv_in", ENCODER, 3)
    width = ENCODER
    for level, factor in enumerate(LEVELS):
        for block in range(2):
            found |= _resnet(f"encoder.down.{level}.block.{block}", width, ENCODER * factor)
            width = ENCODER * factor
        if level < len(LEVELS) - 1:
            found |= _conv(f"encoder.down.{level}.downsample.conv", width, width)
    return found | _middle("encoder", width) | _out("encoder", width, 2 * channels)


def _decoder(channels: int) -> Shapes:
    width = DECODER * LEVELS[-1]
    found = _conv("decoder.conv_in", width, channels) | _middle("decoder", width)
    for level, factor in reversed(list(enumerate(LEVELS))):
        for block in range(3):
            found |= _resnet(f"decoder.up.{level}.block.{block}", width, DECODER * factor)
            width = DECODER * factor
        if level > 0:
            found |= _conv(f"decoder.up.{level}.upsample.conv", width, width)
    return found | _out("decoder", width, 3)


def _middle(half: str, width: int) -> Shapes:
    attention = _norm(f"{half}.mid.attn_1.norm", width)
    for name in ("q", "k", "v", "proj_out"):
        attention |= _conv(f"{half}.mid.attn_1.{name}", width, width, 1)
    blocks = (_resnet(f"{half}.mid.block_{number}", width, width) for number in (1, 2))
    first, second = blocks
    return first | attention | second


def _resnet(stem: str, into: int, out: int) -> Shapes:
    shortcut = {} if into == out else _conv(f"{stem}.nin_shortcut", out, into, 1)
    return (
        _norm(f"{stem}.norm1", into)
        | _conv(f"{stem}.conv1", out, into)
        | _norm(f"{stem}.norm2", out)
        | _conv(f"{stem}.conv2", out, out)
        | shortcut
    )


def _out(half: str, width: int, out: int) -> Shapes:
    return _norm(f"{half}.norm_out", width) | _conv(f"{half}.conv_out", out, width)


def _conv(name: str, out: int, into: int, size: int = 3) -> Shapes:
    return {f"{name}.weight": (out, into, size, size), f"{name}.bias": (out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
