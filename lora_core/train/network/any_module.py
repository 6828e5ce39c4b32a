"""LoRA on any torch module: no denoiser, no family, nothing but linear layers and convolutions.

    adapted = attach_module(model, NetworkSection(rank=1, targets="all"), seed=0)
    optimizer = torch.optim.AdamW(adapted.parameters(), lr=1e-3)
    ...                                     # train the model as ever: only the adapters move
    save_module(adapted, "adapter")         # PEFT's folder: adapter_model.safetensors, adapter_config.json
    adapted.detach()                        # the model as it was

What is saved is PEFT's own format, so ``peft.PeftModel.from_pretrained(model, "adapter")`` reads it as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from ...errors import ConfigError, ShapeMismatchError
from ...formats.peft import WRAPPER
from ...io import Entry, TensorDict, open_tensors, stream_safetensors
from ...io.atomic import atomic_file
from ...io.opening import CONFIG, FOLDER_FILES
from ..config.network import NetworkSection
from .adapted import AdaptedModule
from .injection import configuration
from .planning import Place

COMPONENT = "module"


def attach_module(module: nn.Module, section: NetworkSection, seed: int = 0) -> AdaptedModule:
    """Freeze a module and put adapters into its layers.

    Args:
        module: any; its own names are what ``targets`` means.
        section: type, rank and targets; there are no blocks.
        seed: of the start values.

    Raises:
        ConfigError: settings that cannot work on this module.
        MissingExtraError: PEFT is not installed.
    """
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        return AdaptedModule(module, COMPONENT, section, lambda path: Place(path, ""), (), seed)
    except BaseException:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        raise


def save_module(adapted: AdaptedModule, folder: str | PathLike[str]) -> Path:
    """Write the adapters in PEFT's format, float32, over what is there; returns the tensors' file.

    Raises:
        ConfigError: the adapters began at the base's own directions, which PEFT's configuration cannot say.
        DiskFullError: there is no room.
    """
    if adapted.starts:
        raise ConfigError("network.start", [f"{adapted.section.start} is not saved for plain modules: use gaussian"])
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_settings(adapted), indent=2).encode()
    with atomic_file(out / f"{CONFIG}.json", size=len(text), overwrite=True) as target:
        target.write(text)
    source = TensorDict({_key(path, name): one for path, name, one in _tensors(adapted)})
    entries = [Entry(key, ref.dtype, ref.shape, ref) for key, ref in source.items()]
    file = out / FOLDER_FILES[0]
    stream_safetensors(file, entries, {"format": "pt"}, overwrite=True)
    return file


def load_module(adapted: AdaptedModule, folder: str | PathLike[str]) -> None:
    """Set the adapters to saved ones of the same settings.

    Raises:
        FileNotFoundError, CorruptFileError: there is no such file, or it is damaged.
        ConfigError: it has other modules.
        ShapeMismatchError: a tensor has another shape.
    """
    source = open_tensors(Path(folder))
    wanted = {_key(path, name): (path, name) for path, name, _ in _tensors(adapted)}
    if odd := sorted(wanted.keys() ^ source.keys()):
        where = "the file alone" if odd[0] in source else "the network alone"
        raise ConfigError(source.label, [f"{odd[0]} is in {where}: attach with the settings that it was saved with"])
    for key, (path, name) in wanted.items():
        tensor = adapted.layers[path].tensors()[name]
        if source[key].shape != tuple(tensor.shape):
            hint = "Attach with the rank that it was saved with."
            raise ShapeMismatchError(source.label, key, tuple(tensor.shape), source[key].shape, hint)
        tensor.data.copy_(source[key].load())


def _tensors(adapted: AdaptedModule) -> list[tuple[str, str, Tensor]]:
    return [
        (path, name, one.detach().cpu().contiguous())
        for path, layer in adapted.layers.items()
        for name, one in layer.tensors().items()
    ]


def _key(path: str, name: str) -> str:
    return f"{WRAPPER}{path}.{name}"


def _settings(adapted: AdaptedModule) -> Mapping[str, Any]:
    """PEFT's configuration as JSON; sets are lists there, and names are whole paths."""
    stated = configuration(adapted.module)
    return {
        name: sorted(cast("set[str]", value)) if isinstance(value, set) else value for name, value in stated.items()
    }
