"""Captions -> what the host's CLIP makes of them, one row of tensors each.

A row holds what a CONDITIONING of the host does, under the names that its models ask for: ``cross_attn``,
``pooled_output``, ``attention_mask`` and what else a family has. Tensors are as the host gives them, with its batch of
one in front.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from comfy import model_management
from torch import Tensor, nn

from ..lora_core.errors import ConfigError
from ._host_cancel import cancellable

Row = dict[str, Tensor]

_BRACKET = re.compile(r"(?<!\\)([()])")


class HostEncoder:
    """One of the host's text encoders, with its tokenizer, as the engine knows them.

    Attributes:
        component: of the family.
        model: the host's module.
    """

    def __init__(self, component: str, model: nn.Module, words: Any) -> None:
        self.component, self.model, self._words = component, model, words

    @property
    def tokenizer(self) -> Any:
        """Of transformers."""
        return self._words.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self._words.tokenizer = tokenizer


def own_words(clip: Any, encoder: str) -> Any:
    """A copy of what the host turns text into numbers with for an encoder, in the place of the CLIP's own one.

    ``clip`` is a clone, which shares its tokenizers with the one that it was cloned from.
    """
    clip.tokenizer = copy.copy(clip.tokenizer)
    words = copy.copy(getattr(clip.tokenizer, encoder))
    setattr(clip.tokenizer, encoder, words)
    return words


def literal(caption: str) -> str:
    """A caption whose brackets are brackets: in a prompt of the host they are weights."""
    return _BRACKET.sub(r"\\\1", caption)


def encode(clip: Any, captions: Sequence[str]) -> list[Row]:
    """Through the host's own loading, without gradients."""
    rows: list[Row] = []
    for caption in captions:
        with torch.inference_mode(), cancellable():
            found = clip.encode_from_tokens(clip.tokenize(literal(caption)), return_pooled=True, return_dict=True)
        rows.append({name: tensor.clone() for name, tensor in _row(found).items()})
    return rows


def encode_held(clip: Any, captions: Sequence[str]) -> list[Row]:
    """With gradients: the CLIP is loaded, and no model is to be moved."""
    stage, device = clip.cond_stage_model, clip.patcher.load_device
    rows: list[Row] = []
    for caption in captions:
        stage.reset_clip_options()
        if clip.layer_idx is not None:
            stage.set_clip_options({"layer": clip.layer_idx})
        stage.set_clip_options({"execution_device": device})
        with cancellable(), _on(device):
            made = stage.encode_token_weights(clip.tokenize(literal(caption)))
        rows.append(_row({"cond": made[0], "pooled_output": made[1], **(made[2] if len(made) > 2 else {})}))
    return rows


def _on(device: torch.device) -> AbstractContextManager[object]:
    """What the host puts around its text encoders where it knows of several GPUs."""
    around = getattr(model_management, "cuda_device_context", None)  # hosts before 0.30 have none
    return nullcontext() if around is None else around(device)


def check_clip(clip: Any) -> None:
    """Raise ConfigError for a CLIP whose conditions depend on the step of sampling."""
    if getattr(clip, "apply_hooks_to_conds", None) is not None or getattr(clip.patcher, "forced_hooks", None):
        raise ConfigError("CLIP", ["it has hooks that change it while a picture is sampled: connect one without"])


def _row(found: Mapping[str, Any]) -> Row:
    row: Row = {}
    for name, value in found.items():
        name = "cross_attn" if name == "cond" else name
        if isinstance(value, Tensor):
            row[name] = value
        elif isinstance(value, (bool, int, float)):
            row[name] = torch.tensor(value)
        elif value is not None and name != "hooks":
            fault = f"it gives {name} as {type(value).__name__}, which cannot be kept for training"
            raise ConfigError("CLIP", [f"{fault}: this family cannot be trained here"])
    return row
