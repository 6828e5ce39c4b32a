"""What training did, module by module, as PEFT computes it: to compare with what a saved file does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from ...architectures import Location
from ...architectures.spec import sliced_shape
from ...types import ModuleKey, Target
from ..denoiser import Denoiser
from .adapted import AdaptedModule
from .locating import location_of


class Deltas(Mapping[ModuleKey, Tensor]):
    """Canonical module -> change of its whole weight, float32 on the CPU; computed when asked for, as all of them
    together may be larger than the model. Where a module of the library is rows of one, its change is those rows'."""

    def __init__(self, denoiser: Denoiser, parts: Mapping[str, AdaptedModule]) -> None:
        self._architecture = denoiser.architecture
        self._places: dict[ModuleKey, list[tuple[AdaptedModule, str, Location]]] = {}
        for component, part in parts.items():
            for path in part.layers:
                location = location_of(denoiser, component, path)
                assert location is not None  # others are not adapted
                for canonical in dict.fromkeys(one.path for one in location.parts):
                    self._places.setdefault(ModuleKey(component, canonical), []).append((part, path, location))

    def __getitem__(self, key: ModuleKey) -> Tensor:
        return self._joined(key, lambda part, path: part.change(path))

    def weight(self, key: ModuleKey) -> Tensor:
        """The frozen weight of a module, float32 on the CPU; rows of it that are not adapted are 0."""
        return self._joined(key, lambda part, path: part.layers[path].weight.detach().float())

    def __iter__(self) -> Iterator[ModuleKey]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _joined(self, key: ModuleKey, read: Callable[[AdaptedModule, str], Tensor]) -> Tensor:
        found = [self._one(key, read(part, path).cpu(), location) for part, path, location in self._places[key]]
        return found[0] if len(found) == 1 else torch.stack(found).sum(dim=0)

    def _one(self, key: ModuleKey, change: Tensor, location: Location) -> Tensor:
        if not location.slice and not location.more:
            return change
        architecture = self._architecture
        shape = architecture.shape(Target(key))
        assert shape is not None
        whole, row = torch.zeros(shape), 0
        for one in location.parts:
            own = architecture.shape(Target(ModuleKey(key.component, one.path)))
            assert own is not None
            count = sliced_shape(own, one.slice)[0] if one.slice else own[0]
            if one.path == key.path:
                start = one.slice.start if one.slice else 0
                whole[start : start + count] = change[row : row + count].reshape(count, *shape[1:])
            row += count
        return whole
