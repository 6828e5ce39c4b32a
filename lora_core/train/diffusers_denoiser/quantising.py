"""The frozen weights of a UNet's attention and feed-forward in 8 bits, by torchao, which PEFT's adapters can stand on.

    int8   round(W / s) with one float scale a row of W     a quarter of float32's bytes
    fp8    float8_e4m3 of W / s, one scale for each row      the same

W is the weight of a linear layer; what a layer computes is dequantised weight times input. Convolutions stay as they
are: torchao has no such layers. diffusers' own casting of layers is of no use here: it swaps the stored weight back
after the forward pass, and the backward pass needs it.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from .libraries import library


def quantise(unet: Any, kind: str) -> None:
    """Quantise in place; ``kind`` is ``"int8"`` or ``"fp8"``.

    Raises:
        MissingExtraError: torchao is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its parts for hardware that is not here
        ao = library("torchao.quantization", extra="quantise", purpose=f"model.quantise {kind}")
    settings = ao.Int8WeightOnlyConfig() if kind == "int8" else ao.Float8WeightOnlyConfig()
    ao.quantize_(unet, settings, filter_fn=_is_of_attention)


def _is_of_attention(module: nn.Module, path: str) -> bool:
    return isinstance(module, nn.Linear) and ".attentions." in f".{path}"
