"""Adapted models as an ``Adapter``: tensors under PEFT's names, mapped as those of any file are.

    unet.base_model.model.<path>.lora_A.weight    and .lora_B.weight, .alpha, .lora_magnitude_vector, .hada_w1_a, ...

pissa and olora: the change is ``s (up down - up_0 down_0)``, so the file has rank 2 r,
``[up | -up_0] @ [down; down_0]``, with the alpha that keeps the scale. A LoKr of two whole matrices has no rank that
an alpha could be divided by: the smaller takes the scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...architectures import Architecture
from ...formats.peft import WRAPPER
from ...io import TensorDict
from ...mapping import map_source, require_complete
from ...stack import Adapter
from .adapted import AdaptedModule
from .layers import Layer

# (component, library's path) -> the name that files of the family have for it
NameOf = Callable[[str, str], str]


def adapter_of(
    parts: Mapping[str, AdaptedModule], architecture: Architecture, name_of: NameOf, dtype: torch.dtype | None
) -> Adapter:
    """A snapshot of the adapters; training may go on.

    Args:
        parts: component -> model.
        architecture: of the model.
        name_of: names in the file.
        dtype: of the tensors but alphas, float32 as trained when None.
    """
    tensors: dict[str, Tensor] = {}
    for component, part in parts.items():
        own = architecture.component(component)
        prefix = f"{own.diffusers_prefix if own else component}.{WRAPPER}"
        for path, layer in part.layers.items():
            for suffix, tensor in tensors_of(layer, part.starts.get(path)).items():
                kept = tensor if suffix == "alpha" or dtype is None else tensor.to(dtype)
                tensors[f"{prefix}{name_of(component, path)}.{suffix}"] = kept
    adapter = map_source(TensorDict(tensors, "the trained LoRA"), architecture.name)
    require_complete(adapter.report)
    return adapter


@torch.no_grad()
def tensors_of(layer: Layer, start: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Suffix -> tensor on the CPU, of which nothing else holds the memory.

    Args:
        layer: the adapted module.
        start: tensors at the start, where the change is the difference to them.
    """
    found = {name: one.detach().cpu().float().clone().contiguous() for name, one in layer.tensors().items()}
    rank = layer.rank
    if start is not None:
        first = {name: one.cpu().float() for name, one in start.items()}
        found["lora_A.weight"] = torch.cat([found["lora_A.weight"], first["lora_A.weight"]])
        found["lora_B.weight"] = torch.cat([found["lora_B.weight"], -first["lora_B.weight"]], dim=1)
        rank *= 2
    if layer.kind == "oft":
        return found
    if "lokr_w1" in found and "lokr_w2" in found:
        found["lokr_w1"] *= layer.scale
        return found
    found["alpha"] = torch.tensor(layer.scale * rank, dtype=torch.float64)
    return found
