"""Digests of weights and settings: what caches of latents and text are keyed by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

_PREFIX = "text_model."


def fingerprint(modules: Mapping[str, nn.Module], settings: Mapping[str, Any]) -> str:
    """SHA-256 of all parameters and buffers by name, dtype and bytes, and of settings as JSON, in 32 characters.

    The names are the same for all versions of transformers.
    """
    tensors = {
        f"{part}.{name.removeprefix(_PREFIX)}": value
        for part, module in modules.items()
        for name, value in module.state_dict().items()
        if not name.endswith("position_ids")  # some versions store them
    }
    whole = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    names = sorted(tensors)
    with ThreadPoolExecutor(4) as pool:  # hashing lets other threads run
        for name, digest in zip(names, pool.map(_digest, [tensors[name] for name in names]), strict=True):
            whole.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)} {digest}".encode())
    return whole.hexdigest()[:32]


def vocabulary_digest(tokenizer: Any) -> str:
    """Of what a tokenizer does with text: its words, length and filling."""
    words = json.dumps([tokenizer.get_vocab(), tokenizer.model_max_length, tokenizer.pad_token], sort_keys=True)
    return hashlib.sha256(words.encode()).hexdigest()


def _digest(tensor: Tensor) -> str:
    data: Any = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(data).hexdigest()
