"""Which number type each tensor of a merged checkpoint gets.

``same``: the source's own. ``fp32``, ``fp16``, ``bf16``: every floating tensor of the model. ``fp8`` (e4m3fn):
the weights of two and more dimensions of denoiser and text encoders, as the fp8 files in circulation have it;
embeddings, norms, biases and the VAE, which are small and suffer most, become fp16 where they were wider.
Never changed: integers (``position_ids``), and tensors that belong to no part of the model (the noise schedule,
``v_pred``), which readers expect as they are.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from ..errors import UnknownNameError
from ..io.dtypes import FLOATS, NAMES, TORCH_DTYPES
from ..types import Shape

DTYPES = ("same", "fp32", "fp16", "bf16", "fp8")

CASTS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def output_dtype(
    choice: str, key: str, dtype: str, shape: Shape, weights: Collection[str], model: Collection[str]
) -> str:
    """Header name of the dtype that a tensor is written in.

    Args:
        choice: one of ``DTYPES``.
        key, dtype, shape: of the tensor in the checkpoint.
        weights: keys of the denoiser and the text encoders.
        model: prefixes of keys that belong to the model.
    """
    if choice not in DTYPES:
        raise UnknownNameError("dtype", choice, DTYPES)
    if choice == "same" or TORCH_DTYPES[dtype] not in FLOATS or not (key in weights or key.startswith(tuple(model))):
        return dtype
    if choice == "fp8":
        if key in weights and len(shape) >= 2 and "embedding" not in key:
            return NAMES[torch.float8_e4m3fn]
        return "F16" if dtype in ("F32", "F64") else dtype
    return NAMES[CASTS[choice]]
