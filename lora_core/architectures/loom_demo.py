"""The demo model in ``demo/model``: SD 1.5's layout, narrower, with 16 latent channels. Source: its configs."""

from __future__ import annotations

from ..types import TEXT_ENCODER
from . import clip, unet
from .spec import Architecture

UNET = unet.UNetConfig(
    model_channels=64,
    channel_mult=(1, 2),
    depth=(1, 1),
    middle_depth=1,
    context_dim=128,
    res_blocks=1,
    in_channels=16,
    out_channels=16,
)

ARCHITECTURE = Architecture(
    name="loom_demo",
    title="Loom Demo",
    build=lambda: (
        unet.build(UNET),
        clip.build(
            clip.ClipConfig(width=128, layers=2, vocabulary=1024),
            TEXT_ENCODER,
            checkpoint_prefix="cond_stage_model.transformer.",
            kohya_prefixes=("lora_te", "lora_te1"),
        ),
    ),
    modelspec=("loom-demo",),
    base_versions=("loom_demo",),
)
