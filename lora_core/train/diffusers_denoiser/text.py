"""Captions -> what the UNet is conditioned on.

    SD 1, SD 2   "text"    final_norm(hidden[-1 - skip])            (b, 77, width)
    SDXL         "text"    [hidden_1[-2 - skip], hidden_2[-2 - skip]]  (b, 77, 768 + 1280)
                 "pooled"  projection(final_norm(hidden_2[-1])[end])   (b, 1280)

hidden: outputs of the layers, ``end``: the place of the first end token. Sources: the pipelines of diffusers, Podell
et al. 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import ConfigError
from ..denoiser import Conditions
from .parts import TextEncoder


def encode(encoders: Sequence[TextEncoder], captions: Sequence[str], clip_skip: int, sdxl: bool) -> Conditions:
    """Conditions on the encoders' device, in their dtype."""
    rows: list[Tensor] = []
    pooled: Tensor | None = None
    for encoder in encoders:
        ids = token_ids(encoder.tokenizer, captions).to(encoder.model.device)
        output = encoder.model(ids, output_hidden_states=True)
        if not sdxl:
            rows.append(_normed(encoder.model, output, clip_skip))
            continue
        rows.append(output.hidden_states[-2 - clip_skip])
        if hasattr(encoder.model, "text_projection"):
            # transformers looks for the highest id where settings are old, and new words have higher ones.
            ends = (ids == encoder.tokenizer.eos_token_id).int().argmax(dim=-1)
            last = output.last_hidden_state[torch.arange(len(ids), device=ids.device), ends]
            pooled = encoder.model.text_projection(last)
    text = torch.cat(rows, dim=-1)
    return {"text": text} if pooled is None else {"text": text, "pooled": pooled}


def token_ids(tokenizer: Any, captions: Sequence[str]) -> Tensor:
    """(b, 77) ids, cut off and filled up to the tokenizer's length."""
    return cast(
        Tensor,
        tokenizer(
            list(captions),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids,
    )


def too_long(tokenizer: Any, captions: Sequence[str]) -> list[str]:
    """Those of which the end is cut off."""
    lengths = [len(ids) for ids in tokenizer(list(captions)).input_ids]
    return [caption for caption, length in zip(captions, lengths, strict=True) if length > tokenizer.model_max_length]


def check_vocabulary(encoders: Sequence[TextEncoder], label: str) -> None:
    """Raise where a tokenizer knows words that its encoder has no embedding for."""
    for encoder in encoders:
        words, rows = len(encoder.tokenizer), encoder.model.config.vocab_size
        if words > rows:
            fault = f"{label}: {words} words in the tokenizer of the {encoder.component}, which has {rows}"
            raise ConfigError("model", [f"{fault}; give the tokenizer of this model"])


def check_clip_skip(encoders: Sequence[TextEncoder], clip_skip: int, sdxl: bool) -> None:
    """Raise where no layer would be left."""
    layers = min(encoder.model.config.num_hidden_layers for encoder in encoders) - sdxl
    if clip_skip >= layers:
        fault = f"leaves out {clip_skip} of {layers} layers of the text encoder; set it to {layers - 1} or less"
        raise ConfigError("model.clip_skip", [fault])


def _normed(model: Any, output: Any, clip_skip: int) -> Tensor:
    if clip_skip == 0:
        return output.last_hidden_state
    # transformers 5 has the layers of a CLIPTextModel one level higher.
    inner = getattr(model, "text_model", model)
    return inner.final_layer_norm(output.hidden_states[-1 - clip_skip])
