"""A file as the host's LORA_MODEL: tensors that the host's own nodes apply and save.

Files that the host reads itself are handed on as they are, as views that take no memory. The others are said in its
own names: those of PEFT, XLabs or cloneofsimo, and diffusers' files whose scales stand in the metadata, which a
LORA_MODEL does not have.
"""

from __future__ import annotations

from typing import Any

import torch

from ..lora_core import Adapter
from ..lora_core.convert import convert
from ..lora_core.errors import ConversionError
from ..lora_core.types import DENOISER
from ._bridge import count_read

# What the host reads for any model.
READ = ("kohya", "comfy")
OWN = "comfy"


def lora_model(adapter: Adapter, model: Any) -> dict[str, torch.Tensor]:
    """The tensors of a file; never to be written to.

    Args:
        adapter: of the file.
        model: the host's MODEL that it is for, or None.
    """
    source = adapter.deltas[0][1].tensors[0].source
    tensors = {key: ref.load() for key, ref in source.items()}
    if not _scales_elsewhere(adapter, tensors) and _is_read(adapter, tensors, model):
        return tensors
    try:
        (content,) = convert(adapter, OWN).contents
    except ConversionError:  # a type that only its own format can say
        return tensors
    return {key: stored.load() for key, stored in content.tensors.items()}


def _scales_elsewhere(adapter: Adapter, tensors: dict[str, torch.Tensor]) -> bool:
    """Whether there are scales and no tensors that say so."""
    scaled = any(module.alpha not in (None, module.rank) for module in adapter.report.modules)
    return scaled and not any(key.endswith("alpha") for key in tensors)


def _is_read(adapter: Adapter, tensors: dict[str, torch.Tensor], model: Any) -> bool:
    """Whether the host finds all of the denoiser's modules under the names of the file."""
    if model is None:
        return adapter.report.format in READ
    expected = {module.name for module in adapter.report.modules if module.target.module.component == DENOISER}
    return count_read(model, tensors) >= len(expected)
