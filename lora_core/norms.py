"""Where a LoRA acts: the norm of its change in each block of the model.

The norm of a block is that of all its differences together at strength 1,
``sqrt(sum over its modules of |scale * up @ down|^2)`` (Frobenius). It is computed from the factors,
``|up @ down|^2 = sum((up^T up) * (down down^T))``, without making a difference of full size; a type that is no product
of factors is applied to zeros, one module at a time. A DoRA counts with its direction, before the magnitudes.
"""

from __future__ import annotations

import os
from functools import lru_cache
from math import isfinite

import torch

from .adapters import Delta
from .architectures import ARCHITECTURES
from .finite import check_finite
from .io import state_of
from .mapping import load_adapter
from .stack import Adapter
from .types import DENOISER, Shape


def file_norms(path: str | os.PathLike[str]) -> dict[str, float]:
    """``block_norms`` of a file, kept as long as it is the same; errors as ``load_adapter``, too."""
    return dict(_file_norms(os.path.realpath(path), state_of(path)))


@lru_cache(maxsize=256)
def _file_norms(path: str, state: str) -> tuple[tuple[str, float], ...]:
    return tuple(block_norms(load_adapter(path)).items())


@torch.no_grad()
def block_norms(adapter: Adapter) -> dict[str, float]:
    """Block (of the denoiser), or the name of a text encoder -> norm, in the order of the model.

    Raises:
        NonFiniteError: the file holds NaN or infinity.
    """
    architecture = ARCHITECTURES.get(adapter.architecture)
    squares: dict[str, float] = {}
    for target, delta in adapter.deltas:
        component = target.module.component
        name = architecture.block(target.module) if component == DENOISER else component
        shape = architecture.shape(target)
        assert shape is not None  # it was mapped onto this architecture
        squares[name] = squares.get(name, 0.0) + _square(delta, shape)
    if not all(map(isfinite, squares.values())):
        check_finite(adapter)
    order = [*architecture.blocks, *(component.name for component in architecture.components)]
    return {name: squares[name] ** 0.5 for name in order if name in squares}


def _square(delta: Delta, shape: Shape) -> float:
    delta = getattr(delta, "direction", delta)
    factors = delta.factors()
    if factors is None:
        return float(delta.apply(torch.zeros(shape), 1.0).square().sum(dtype=torch.float64))
    up, down = factors.up.double(), factors.down.double()
    square = factors.scale**2 * float(((up.T @ up) * (down @ down.T)).sum())
    return 0.0 if square < 0 else square  # rounding; a NaN stays one
