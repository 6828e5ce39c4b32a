"""A picture's latents, through diffusers' own pipeline made of the parts that are trained: nothing is loaded twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..denoiser import Conditions
from ..hushed import hushed
from .libraries import library
from .parts import Parts


def pipeline(parts: Parts, scheduler: Any) -> Any:
    """The pipeline of SD or SDXL around these parts; prompts are encoded by us, so it gets no tokenizer."""
    diffusers = library("diffusers")
    common = {"vae": parts.vae, "unet": parts.unet, "scheduler": scheduler, "text_encoder": None, "tokenizer": None}
    with hushed():
        make = diffusers.StableDiffusionXLPipeline if parts.is_sdxl else diffusers.StableDiffusionPipeline
    if parts.is_sdxl:
        made = make(**common, text_encoder_2=None, tokenizer_2=None, add_watermarker=False)
    else:
        made = make(**common, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def draw_latents(
    made: Any,
    conditions: Conditions,
    *,
    noise: Tensor,
    steps: int,
    guidance: float,
    width: int,
    height: int,
) -> Tensor:
    """(1, channels, ...) as the UNet knows them; ``conditions`` has the prompt's row, then the negative prompt's."""
    arguments: dict[str, Any] = {
        "prompt_embeds": conditions["text"][:1],
        "negative_prompt_embeds": conditions["text"][1:],
    }
    if "pooled" in conditions:
        arguments |= {
            "pooled_prompt_embeds": conditions["pooled"][:1],
            "negative_pooled_prompt_embeds": conditions["pooled"][1:],
        }
    result = made(
        **arguments,
        latents=noise,
        num_inference_steps=steps,
        guidance_scale=guidance,
        width=width,
        height=height,
        output_type="latent",
    )
    return result.images


def first_noise(channels: int, height: int, width: int, seed: int) -> Tensor:
    """(1, channels, height, width) drawn on the CPU, so that every device starts from the same."""
    return torch.randn((1, channels, height, width), generator=torch.Generator().manual_seed(seed))
