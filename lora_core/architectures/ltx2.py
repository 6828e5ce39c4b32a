"""LTX-2, video with sound: two streams that look at each other, on the blocks of LTX-Video.

Source of names and sizes: Lightricks' checkpoint as diffusers converts it, and ComfyUI's class. Its text encoder,
Gemma 3 with a projection of its own, has no LoRAs that are known, and so no component here.
"""

from __future__ import annotations

from . import plain
from .ltx_video import attention, feed_forward, modulation
from .spec import Architecture, Component, linear

LATENT, TEXT, LAYERS, CONNECTOR_LAYERS, REGISTERS = 128, 3840, 48, 2, 128
VIDEO, AUDIO = 4096, 2048
# Stream -> prefix of its modules and width.
STREAMS = {"video": ("", VIDEO), "audio": ("audio_", AUDIO)}
# Modulations of the looks across: our name, diffusers' name, width, vectors.
CROSS = (
    ("av_ca_video_scale_shift_adaln_single", "av_cross_attn_video_scale_shift", VIDEO, 4),
    ("av_ca_a2v_gate_adaln_single", "av_cross_attn_video_a2v_gate", VIDEO, 1),
    ("av_ca_audio_scale_shift_adaln_single", "av_cross_attn_audio_scale_shift", AUDIO, 4),
    ("av_ca_v2a_gate_adaln_single", "av_cross_attn_audio_v2a_gate", AUDIO, 1),
)
ATTENTIONS = ("attn1", "attn2", "audio_attn1", "audio_attn2", "audio_to_video_attn", "video_to_audio_attn")


def _outside() -> plain.Rows:
    for stream, (prefix, width) in STREAMS.items():
        yield f"{prefix}patchify_proj", linear(width, LATENT)
        yield from modulation(f"{prefix}adaln_single", width, 6)
        yield f"{prefix}caption_projection.linear_1", linear(width, TEXT)
        yield f"{prefix}caption_projection.linear_2", linear(width, width)
        yield f"{prefix}scale_shift_table", {"": (2, width)}
        yield f"{prefix}proj_out", linear(LATENT, width)
        yield from _connector(f"{stream}_embeddings_connector")
    for path, _, width, parts in CROSS:
        yield from modulation(path, width, parts)


def _connector(path: str) -> plain.Rows:
    """What a stream makes of the text first."""
    yield path, {"learnable_registers": (REGISTERS, TEXT)}
    for index in range(CONNECTOR_LAYERS):
        block = f"{path}.transformer_1d_blocks.{index}"
        yield from attention(f"{block}.attn1", TEXT, TEXT, TEXT)
        yield from feed_forward(f"{block}.ff", TEXT)


def _block() -> plain.Rows:
    tables = {f"{prefix}scale_shift_table": (6, width) for prefix, width in STREAMS.values()}
    across = {f"scale_shift_table_a2v_ca_{stream}": (5, width) for stream, (_, width) in STREAMS.items()}
    yield "", tables | across
    for prefix, width in STREAMS.values():
        for name in ("attn1", "attn2"):
            yield from attention(prefix + name, width, width, width)
        yield from feed_forward(f"{prefix}ff", width)
    yield from attention("audio_to_video_attn", VIDEO, AUDIO, AUDIO)
    yield from attention("video_to_audio_attn", AUDIO, VIDEO, AUDIO)


def _names() -> dict[str, str]:
    """Our path -> diffusers'."""
    names = {f"{prefix}patchify_proj": f"{prefix}proj_in" for prefix, _ in STREAMS.values()}
    timed = {f"{prefix}adaln_single": f"{prefix}time_embed" for prefix, _ in STREAMS.values()}
    for path, name in {**timed, **{path: name for path, name, _, _ in CROSS}}.items():
        names |= {row: name + row.removeprefix(path) for row, _ in modulation(path, 1, 1)}
    return names | {f"{path}.{name}_norm": f"{path}.norm_{name}" for path in ATTENTIONS for name in "qk"}


def _build() -> tuple[Component, ...]:
    return (plain.build(_outside(), _block(), "transformer_blocks", LAYERS, names=_names()),)


ARCHITECTURE = Architecture("ltx2", "LTX-2", _build, pipeline=("LTX2Pipeline", "LTX2ImageToVideoPipeline"))
