"""``[model]``: the base that is adapted, and how it is held in memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .section import Section


class ModelSection(Section):
    """The base model; its weights are frozen."""

    base: str = Field(min_length=1, description="folder of a diffusers pipeline, a hub id, or a single-file checkpoint")
    vae: str = Field(default="", description="another VAE in the place of the base's own: a folder, hub id or file")
    pipeline: str = Field(default="", description="folder of configs and tokenizers for a single file, when offline")
    revision: str = Field(default="", description="branch or commit of a hub id")
    prediction: Literal["auto", "epsilon", "v", "flow"] = Field(
        default="auto", description="what the model predicts; auto reads it from the scheduler's settings"
    )
    zero_terminal_snr: bool = Field(
        default=False, description="rescale the noise schedule so that its end is pure noise"
    )
    clip_skip: int = Field(default=0, ge=0, le=11, description="last layers of the text encoder to leave out")
    dtype: Literal["fp32", "fp16", "bf16"] = Field(default="fp32", description="number type of the frozen weights")
    quantise: Literal["none", "fp8", "int8"] = Field(
        default="none", description="hold the frozen weights in fewer bits"
    )
