"""Models for host tests, made of inventories (names and shapes only) with seeded random weights."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from host_harness.cache import cache_dir, locked

if TYPE_CHECKING:
    import torch

VERSION = "1"  # part of the file's name: raise it when what is written below changes


def sd15_checkpoint(keys: Path) -> Path:
    """A full-size checkpoint in SD 1.5's own layout: 2.1 GB in fp16, made once (about 20 s), kept in the cache.

    Its pictures are noise, but every shape is real, and activations stay in range: weights are normal / sqrt(fan in),
    norms are 1 and biases 0.
    """
    path = cache_dir() / f"sd15-random-v{VERSION}.safetensors"
    with locked(path.stem):
        if not path.exists():
            _write(keys / "base" / "sd15__ldm.json", path)
    return path


def _write(inventory: Path, path: Path) -> None:
    import torch

    content = json.loads(inventory.read_text())
    optional = set(content.get("optional", []))
    generator = torch.Generator().manual_seed(15)
    tensors = {
        name: random_weight(name, shape, generator)
        for name, shape in content["tensors"].items()
        if name not in optional
    }
    save(tensors, path)


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """A safetensors file that is there whole or not at all."""
    from safetensors.torch import save_file

    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
    os.close(descriptor)
    try:
        save_file(tensors, partial, metadata={"format": "pt"})
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)


def random_weight(name: str, shape: list[int], generator: torch.Generator) -> torch.Tensor:
    import torch

    if name.endswith(".bias"):
        return torch.zeros(shape, dtype=torch.float16)
    if len(shape) == 1:  # the weight of a norm
        return torch.ones(shape, dtype=torch.float16)
    fan_in = math.prod(shape[1:])
    return torch.randn(shape, generator=generator).div_(math.sqrt(fan_in)).half()
