"""What the training nodes hand each other: settings as the engine's TOML has them, nothing of the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dataset:
    """LOOM_DATASET: pictures and captions.

    Args:
        data: ``[data]``, with ``data["folder"]`` an existing folder.
        validation: ``[validation]``; may be empty.
    """

    data: Table
    validation: Table


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """LOOM_TRAIN_SETTINGS: what the user set, and nothing else.

    Args:
        preset: a name of ``PRESETS``, or ``auto-<purpose>``: the one of the connected model's family for it.
        values: section -> key -> value, ``{"network": {"rank": 8}}``.
    """

    preset: str
    values: Mapping[str, Table]
