"""``loom demo``: train the demo's two LoRAs and check what they must do. It is part of the repository, not of the
library: its model, pictures and checks lie in the folder ``demo`` beside ``lora_core``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from ..errors import ConfigError
from . import DONE, FAULT, Stopped
from .training import needs_packages

ROOT = Path(__file__).resolve().parents[2]


def run(out: Path, *, train: bool) -> int:
    """Train, measure and draw; 1 where a check does not hold.

    Raises:
        ConfigError: this is an installation without the repository.
    """
    if not (ROOT / "demo" / "prove.py").is_file():
        where = "beside the installed library there is no folder demo; clone the repository, and call it there"
        raise ConfigError("loom demo", [where])
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    with needs_packages():
        holds = importlib.import_module("demo.prove").run(out, train=train)
    if holds is None:
        raise Stopped("stopped; what was trained so far is saved, and the same command goes on from there")
    return DONE if holds else FAULT
