"""The parts of a pipeline, wherever they were loaded from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class TextEncoder:
    """A CLIP and its tokenizer.

    Args:
        component: ``text_encoder`` or ``text_encoder_2``.
        model: transformers' ``CLIPTextModel`` or ``CLIPTextModelWithProjection``.
        tokenizer: transformers' ``CLIPTokenizer``.
    """

    component: str
    model: Any
    tokenizer: Any


@dataclass(slots=True)
class Parts:
    """What a pipeline is made of; the objects are diffusers' and transformers' own.

    Args:
        label: name to show, without folders of the machine.
        unet: ``UNet2DConditionModel``.
        vae: ``AutoencoderKL``.
        encoders: one text encoder, or SDXL's two in order.
        scheduler: the scheduler's settings.
    """

    label: str
    unet: Any
    vae: Any
    encoders: Sequence[TextEncoder]
    scheduler: Mapping[str, Any]

    @property
    def is_sdxl(self) -> bool:
        """Whether the UNet takes the pooled text and sizes as further conditions."""
        return self.unet.config.addition_embed_type == "text_time"
