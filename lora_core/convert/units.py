"""What a file says of its modules, apart from how it spells it: roles, scale and place of each.

A unit is one module of the file: a row of an ``Adapter``'s report with the tensors behind it. Spellings that are only
another way to store an ordinary pair of factors (LoRA in parts, BFL's wider layer) are made one here, and PEFT's OFT
is made OneTrainer's, where both are the same series.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from ..adapters import Delta, oft2
from ..adapters.peft_oft import PeftOftDelta
from ..adapters.split import SplitDelta
from ..architectures import ARCHITECTURES
from ..fitting import group_keys, straightened
from ..formats import FORMATS
from ..io import TensorRef, TensorSource
from ..io.dtypes import NAMES, TORCH_DTYPES
from ..stack import Adapter
from ..types import ModuleKey, Shape, Target


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor to be written: of a file as it is, or computed when its turn comes.

    Args:
        shape, dtype: as the new file has them, dtype by its name (``"F16"``).
        content: where it comes from.
    """

    shape: Shape
    dtype: str
    content: TensorRef | Callable[[], torch.Tensor]

    @classmethod
    def of(cls, ref: TensorRef) -> Stored:
        return cls(ref.shape, ref.dtype, ref)

    @classmethod
    def number(cls, value: float) -> Stored:
        """One float32, such as an alpha."""
        return cls((), "F32", lambda: torch.tensor(value, dtype=torch.float32))

    def load(self) -> torch.Tensor:
        """The tensor; never to be written to."""
        tensor = self.content.load() if isinstance(self.content, TensorRef) else self.content()
        return tensor.reshape(self.shape)

    def wide(self) -> torch.Tensor:
        """In the type to compute in."""
        return self.load().to(computing(self.dtype))

    def reshaped(self, shape: Shape) -> Stored:
        return self if shape == self.shape else Stored(shape, self.dtype, lambda: self.load().reshape(shape))

    def computed(self, shape: Shape, change: Callable[[torch.Tensor], torch.Tensor]) -> Stored:
        """What a function makes of it, in float32 and rounded once to the type that it has."""
        return Stored(shape, self.dtype, lambda: change(self.wide()).to(TORCH_DTYPES[self.dtype]))

    def cast(self, dtype: str) -> Stored:
        return self if dtype == self.dtype else Stored(self.shape, dtype, lambda: self.load().to(TORCH_DTYPES[dtype]))


def computing(dtype: str) -> torch.dtype:
    """float32, or float64 for tensors that have it."""
    return torch.float64 if dtype == "F64" else torch.float32


class Part(NamedTuple):
    """Rows of a module."""

    path: str
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Unit:
    """One module of a file.

    Args:
        name: in the file.
        kind: adapter type, for messages.
        component: of the model.
        parts: where its rows go, in their order.
        roles: role -> tensor. ``alpha`` is among them only where it is no scale (the constraint of OFT).
        rank: that alpha is divided by; None where the type has none.
        scale: alpha / rank.
        weight: shape of the weight that it changes, () where it changes none.
    """

    name: str
    kind: str
    component: str
    parts: tuple[Part, ...]
    roles: Mapping[str, Stored]
    rank: int | None
    scale: float
    weight: Shape

    @property
    def rows(self) -> int:
        return sum(part.length for part in self.parts)


def source_of(adapter: Adapter) -> TensorSource:
    """The file, or the tensors in memory, that an adapter was mapped from."""
    return adapter.deltas[0][1].tensors[0].source


def units_of(adapter: Adapter) -> list[Unit]:
    """The modules of an adapter in the order of its file."""
    source, used = source_of(adapter), set(adapter.report.used)
    groups = group_keys(source, FORMATS.get(adapter.report.format)).modules
    changes: dict[str, list[tuple[Target, Delta]]] = {}
    for (target, delta), module in zip(adapter.deltas, adapter.report.modules, strict=True):
        changes.setdefault(module.name, []).append((target, delta))
    return [
        _unit(adapter, name, built, {role: ref for role, ref in groups[name].items() if ref.name in used})
        for name, built in changes.items()
    ]


def _unit(adapter: Adapter, name: str, built: list[tuple[Target, Delta]], refs: dict[str, TensorRef]) -> Unit:
    module, first = built[0][0].module, built[0][0].parameter
    targets = [target for target, _ in built if target.parameter == first]
    ranked = next((delta for _, delta in built if delta.rank is not None), None)
    change = ranked or built[0][1]
    weight = _weight(adapter, targets)
    tensors = straightened({role: ref for role, ref in refs.items() if role != "alpha"}, {"weight": weight})
    roles = {role: Stored.of(ref) for role, ref in tensors.items()}
    if change.rank is None and "alpha" in refs and not any(role.startswith("lokr_") for role in roles):
        roles["alpha"] = Stored.of(refs["alpha"])
    unit = Unit(
        name,
        change.type,
        module.component,
        tuple(_part(adapter, target) for target in targets),
        roles,
        change.rank,
        change.scale,
        weight if first == "weight" else (),
    )
    return _plain(unit, change)


def _weight(adapter: Adapter, targets: list[Target]) -> Shape:
    """The shape of all rows together."""
    found = [ARCHITECTURES.get(adapter.architecture).shape(target) for target in targets]
    shapes = [shape for shape in found if shape]
    if len(shapes) < len(found):
        return ()
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _part(adapter: Adapter, target: Target) -> Part:
    if target.slice is not None:
        assert target.slice.dim == 0  # formats name rows
        return Part(target.module.path, target.slice.start, target.slice.length)
    return Part(target.module.path, 0, rows_of_module(adapter.architecture, target.module))


def rows_of_module(architecture: str, key: ModuleKey) -> int:
    """Outputs of a module."""
    module = ARCHITECTURES.get(architecture).module(key)
    shape = next(iter(module.shapes.values())) if module else ()
    return shape[0] if shape else 1


def _plain(unit: Unit, change: Delta) -> Unit:
    """The same as an ordinary pair of factors or an OFT 2, where the file stores one in a way of its own."""
    roles = dict(unit.roles)
    whole = _split_delta(change)
    if whole is not None:
        kept = {role: stored for role, stored in roles.items() if not role.startswith(("down.", "up."))}
        dtype = NAMES[torch.float32] if len({ref.dtype for ref in whole.tensors}) > 1 else whole.tensors[0].dtype
        rank = sum(down.shape[0] for down in whole.downs)
        out = sum(up.shape[0] for up in whole.ups)
        inner = whole.downs[0].shape[1:]
        pair = {
            "down": Stored((rank, *inner), dtype, lambda: whole.factors().down.to(TORCH_DTYPES[dtype])),
            "up": Stored((out, rank), dtype, lambda: whole.factors().up.to(TORCH_DTYPES[dtype])),
        }
        return replace(unit, roles={**pair, **kept})
    if "wide_down" in roles:
        down = roles.pop("wide_down")
        wide = (unit.weight[0], down.shape[1])
        roles = {"down": down, **roles}
        if wide != unit.weight:
            roles["reshape_weight"] = Stored((2,), "I64", lambda: torch.tensor(wide))
        return replace(unit, roles=roles)
    rotation = getattr(change, "whole", change)
    if isinstance(rotation, PeftOftDelta) and rotation.as_oft2:
        # OneTrainer turns convolutions the other way round, and the series of -Q is the transposed one of Q.
        vectors = roles.pop("peft_oft_R")
        turned = vectors.computed(vectors.shape, torch.neg) if len(unit.weight) > 2 else vectors
        return replace(unit, kind=oft2.TYPE.name, roles={**roles, "oft_R": turned})
    return unit


def _split_delta(change: Delta) -> SplitDelta | None:
    """LoRA in parts, itself or below the rows of it that this delta is."""
    change = getattr(change, "whole", change)
    return change if isinstance(change, SplitDelta) else None
