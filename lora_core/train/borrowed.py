"""The model of a run is borrowed: whoever gave it gets it back as it was, and a state knows which one it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from .denoiser import Denoiser

# Integers as wide as a number of so many bytes.
_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_AT_ONCE = 1 << 22


@contextmanager
def borrowed(denoiser: Denoiser) -> Generator[None, None, None]:
    """A block after which the modules train or rest as before, and are called as before.

    Adapters and flags of parameters are ``Network``'s. Where VAE and text encoders lie is the denoiser's own affair:
    it brings to the device what it needs.
    """
    modules = [module for part in denoiser.parts.values() for module in part.modules()]
    before = [(module, module.training, cast(Any, module)._compiled_call_impl) for module in modules]
    try:
        yield
    finally:
        for module, training, compiled in before:
            module.training = training
            # ``nn.Module.compile`` has no way back of its own; without its result a module is called as before.
            cast(Any, module)._compiled_call_impl = compiled


def base_digest(denoiser: Denoiser) -> str:
    """Of the weights that adapters go on, before they do, and of what latents and conditions depend on."""
    whole = hashlib.sha256(weights_digest(denoiser.parts).encode())
    whole.update(f"{denoiser.vae_fingerprint} {denoiser.text_fingerprint}".encode())
    return whole.hexdigest()[:32]


@torch.no_grad()
def weights_digest(parts: Mapping[str, nn.Module], without: tuple[str, ...] = ("position_ids",)) -> str:
    """Of names, and the sum of each tensor's bits as whole numbers, in 32 characters.

    ``without`` tensors whose names end so: some versions of libraries store ids of positions, others do not.
    Such sums are exact, so every device finds the same ones, in one pass over the memory.
    """
    whole = hashlib.sha256()
    for component, part in parts.items():
        names: list[str] = []
        sums: list[Tensor] = []
        for name, tensor in part.state_dict().items():
            if type(tensor) is not Tensor or name.endswith(without):  # bits of some quantised ones are hidden
                continue
            bits = tensor.contiguous().view(_WHOLE[tensor.element_size()]).flatten()
            names.append(f"{component}.{name} {tensor.dtype} {tuple(tensor.shape)}")
            # Some at a time: on the CPU a sum in a wider type makes a copy in that type first.
            sums.append(torch.stack([some.sum(dtype=torch.int64) for some in torch.split(bits, _AT_ONCE)]).sum())
        together = torch.stack([one.to(sums[0].device) for one in sums]) if sums else torch.zeros(0)
        whole.update(json.dumps(names).encode() + cast(Any, together.cpu()).numpy().tobytes())
    return whole.hexdigest()[:32]
