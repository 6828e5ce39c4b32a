"""Training that goes on from a LoRA file: its factors become the start.

A file's rank r may be lower than the network's R: its ranks come first, the others begin as new ones do, with up 0.
Files and networks have scales s and S of their own: up is taken times s / S.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ...adapters import Delta
from ...adapters.lora import LoraDelta
from ...errors import ConfigError
from ...mapping import load_adapter
from ...types import Target
from ..denoiser import Denoiser
from .adapted import AdaptedModule
from .layers import NAME, Layer
from .locating import location_of, target_of

_WHERE = "network.continue_from"


@torch.no_grad()
def continue_from(parts: Mapping[str, AdaptedModule], denoiser: Denoiser, path: str) -> None:
    """Set the factors of the network to those of a file.

    Args:
        parts: component -> its adapters, which have not been trained.
        denoiser: what they are in.
        path: of a LoRA or LoCon for the same family.

    Raises:
        FileNotFoundError, CorruptFileError, WrongBaseError: as ``load_adapter``.
        ConfigError: the file has modules that the network has not, ranks above the network's, or another type.
    """
    file = Path(path).name
    odd = next((part.section.type for part in parts.values() if part.section.type != "lora"), None)
    if odd is not None:
        raise ConfigError(_WHERE, [f"a network of type {odd} cannot go on from {file}: only lora can"])
    adapter = load_adapter(path, denoiser.architecture.name, strict=True)
    layers: dict[Target, Layer] = {}
    for component, part in parts.items():
        for one, layer in part.layers.items():
            location = location_of(denoiser, component, one)
            if location is not None and not location.more:
                layers[target_of(component, location)] = layer
    faults = [fault for target, delta in adapter.deltas if (fault := _fault(target, delta, layers.get(target)))]
    if faults:
        shown = [*faults[:5], *([f"and {len(faults) - 5} more"] if len(faults) > 5 else [])]
        raise ConfigError(f"{_WHERE}, {file}", shown)
    for target, delta in adapter.deltas:
        assert isinstance(delta, LoraDelta)
        _set(layers[target], delta)


def _fault(target: Target, delta: Delta, layer: Layer | None) -> str | None:
    name = f"{target.module.component} {target.module.path}"
    if not isinstance(delta, LoraDelta):
        return f"{name} is {delta.type}, and only LoRA and LoCon can go on: use another file"
    if layer is None:
        return f"{name} is adapted in the file and not in the network: widen targets, or train the text encoder"
    if (delta.rank or 0) > layer.rank:
        return f"{name} has rank {delta.rank} in the file and {layer.rank} in the network: set rank to {delta.rank}"
    return None


def _set(layer: Layer, delta: LoraDelta) -> None:
    up, down, scale = delta.factors()
    mine_up, mine_down = layer.peft.lora_B[NAME].weight, layer.peft.lora_A[NAME].weight
    rank = up.shape[1]
    mine_up.zero_()
    mine_up[:, :rank] = (up.float() * (scale / layer.scale)).reshape(mine_up[:, :rank].shape)
    mine_down[:rank] = down.float().reshape(mine_down[:rank].shape)
