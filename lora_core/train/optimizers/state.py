"""State dictionaries as tensors and JSON, exactly: what is restored is equal, types of numbers and tuples too.

A state dictionary nests dictionaries (some with numbers for keys), lists and tuples around tensors and plain values.
The tensors go into a safetensors file, the rest into JSON, with a marker where JSON has no word of its own:

    {"tensor": name}            a tensor
    {"dict": [[key, value]..]}  a dictionary, keys as they are
    {"tuple": [..]}             a tuple
    {"number": "inf"}           a float that JSON cannot say
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def flatten_state(state: Mapping[str, object], prefix: str = "") -> tuple[dict[str, Tensor], Json]:
    """State dictionary -> tensors by name, and the rest as JSON that refers to them.

    Tensors are contiguous, as files want them, and not copied where they are: save them before the next step. One
    that occurs twice is stored once.

    Raises:
        TypeError: for a value of a kind that is not in the table above.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    return tensors, _told(state, prefix or "state", tensors, names)


def restore_state(tensors: Mapping[str, Tensor], told: Json) -> dict[str, object]:
    """The state dictionary that ``flatten_state`` was given, for ``load_state_dict``.

    Raises:
        ValueError: for JSON that it did not write, KeyError for a tensor that is missing.
    """
    restored = _restored(told, tensors)
    if not isinstance(restored, dict):
        raise ValueError(f"a state is a dictionary, got {type(restored).__name__}")
    return cast("dict[str, object]", restored)


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], told: Json) -> None:
    """Let an optimizer go on from what ``flatten_state`` made of its ``state_dict``.

    A tensor as large as its parameter gets the parameter's layout in memory: torch's fused kernels go through both in
    the order of memory, and would pair the wrong numbers of a contiguous state and a channels-last parameter.
    """
    optimizer.load_state_dict(restore_state(tensors, told))
    for parameter, state in cast("Mapping[Tensor, dict[str, object]]", optimizer.state).items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _told(value: object, path: str, tensors: dict[str, Tensor], names: dict[int, str]) -> Json:
    if isinstance(value, Tensor):
        name = names.get(id(value))
        if name is None:
            name = path
            while name in tensors:  # {"a.b": x, "a": {"b": y}}
                name += "'"
            names[id(value)], tensors[name] = name, value.detach().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {"dict": [[_key(key, path), _told(inner, f"{path}.{key}", tensors, names)] for key, inner in items]}
    if isinstance(value, (list, tuple)):
        listed: list[Json] = [
            _told(inner, f"{path}.{place}", tensors, names)
            for place, inner in enumerate(cast("Sequence[object]", value))
        ]
        return {"tuple": listed} if isinstance(value, tuple) else listed
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{path}: a {type(value).__name__} cannot be saved as JSON or as a tensor")


def _key(key: object, path: str) -> str | int:
    if isinstance(key, (str, int)):
        return key
    raise TypeError(f"{path}: keys are names or numbers, got a {type(key).__name__}")


def _restored(told: Json, tensors: Mapping[str, Tensor]) -> object:
    if isinstance(told, list):
        return [_restored(inner, tensors) for inner in told]
    if not isinstance(told, dict):
        return told
    match told:
        case {"tensor": str(name)}:
            return tensors[name]
        case {"number": str(number)}:
            return float(number)
        case {"tuple": list(inner)}:
            return tuple(_restored(value, tensors) for value in inner)
        case {"dict": list(pairs)}:
            return {key: _restored(value, tensors) for key, value in cast("list[tuple[str | int, Json]]", pairs)}
        case _:
            raise ValueError(f"not written by flatten_state: {sorted(told)}")
