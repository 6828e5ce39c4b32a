"""Rows of captions -> what the host's model is called with, through the model's own ``extra_conds``.

Each picture of a batch has its own caption and sizes, so each is prepared alone, as the host prepares a prompt, and
those that the host itself would put into one pass are joined by its own rules. Others get passes of their own: some
families tell the model how many words there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from comfy import samplers
from torch import Tensor

from ..lora_core.errors import ConfigError

EDITING = (
    "it wants a picture or a mask beside the noise: an inpainting or editing model. Train on the model that it was "
    "made of; its LoRAs fit both"
)

# A pass: noisy pictures (b, ...), timesteps (b,), the host's conditions.
Pass = Callable[[Tensor, Tensor, dict[str, Any]], Tensor]


def run(
    model: Any,
    rows: Sequence[Mapping[str, Tensor]],
    sizes: Tensor,
    noisy: Tensor,
    times: Tensor,
    guidance: float | None,
    one_pass: Pass,
) -> Tensor:
    """The model's output for every picture.

    Args:
        model: the host's ``BaseModel``.
        rows: of ``_host_text``, one a picture.
        sizes: (b, 6), as the engine has them, on the CPU.
        noisy: (b, channels, ...).
        times: (b,).
        guidance: what a model that was distilled with one is told; None for others, which have their own default.
        one_pass: calls the model.

    Raises:
        ConfigError: the model wants a picture beside the noise.
    """
    prepared = [
        _prepared(model, row, size, noisy[index : index + 1], guidance)
        for index, (row, size) in enumerate(zip(rows, sizes.tolist(), strict=True))
    ]
    groups = _together(prepared)
    if len(groups) == 1:
        return one_pass(noisy, times, samplers.cond_cat(prepared))
    outputs: list[Tensor | None] = [None] * len(prepared)
    for group in groups:
        chosen = torch.tensor(group, device=noisy.device)
        made = one_pass(noisy[chosen], times[chosen], samplers.cond_cat([prepared[index] for index in group]))
        for index, output in zip(group, made, strict=True):
            outputs[index] = output
    return torch.stack([output for output in outputs if output is not None])


def _prepared(
    model: Any, row: Mapping[str, Tensor], size: Sequence[float], noisy: Tensor, guidance: float | None
) -> dict[str, Any]:
    """Name -> one of the host's conditions, for one picture."""
    height, width, top, left, target_height, target_width = size
    found = model.extra_conds(
        **row,
        noise=noisy,
        device=noisy.device,
        prompt_type="positive",
        height=height,
        width=width,
        crop_h=top,
        crop_w=left,
        target_height=target_height,
        target_width=target_width,
        **({} if guidance is None else {"guidance": guidance}),
        latent_image=torch.zeros_like(noisy),
        denoise_mask=None,
    )
    if "c_concat" in found:
        raise ConfigError("MODEL", [EDITING])
    return {name: one.process_cond(batch_size=1, device=noisy.device, area=None) for name, one in found.items()}


def _together(prepared: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Indices of what one pass can take, by the host's rules."""
    groups: list[list[int]] = []
    for index, conditions in enumerate(prepared):
        group = next((one for one in groups if samplers.cond_equal_size(prepared[one[0]], conditions)), None)
        if group is None:
            groups.append([index])
        else:
            group.append(index)
    return groups
