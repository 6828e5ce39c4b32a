"""Model settings -> parts: from a folder, the hub, or a single file."""

from __future__ import annotations

from pathlib import Path

import torch

from ...architectures import Architecture
from ...errors import ConfigError
from ..config import ModelSection
from .folder import load_folder
from .parts import Parts

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_parts(model: ModelSection, architecture: Architecture | None) -> Parts:
    """The parts of the base, frozen, on the CPU."""
    base = Path(model.base)
    if base.is_dir():
        return load_folder(base, DTYPES[model.dtype])
    raise ConfigError("model.base", [f"{model.base}: there is no such folder"])
