"""What LoRA Train returns: pictures of the run, and its report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import folder_paths
import torch
from torch import Tensor

from ..lora_core.train.output import RunFolder
from ..lora_core.train.output.pictures import samples_of
from ._train_words import in_words_of_the_node

# Of these the report has the host's own words, without a path of this machine.
_LEFT_OUT = ("files", "folder", "warnings")


def described(
    found: Mapping[str, Any],
    report: Mapping[str, Any],
    folder: RunFolder,
    notes: Sequence[str],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """One object, as Inspect LoRA has it, with the training added.

    Args:
        found: of ``inspect_file``.
        report: of ``TrainResult``.
        folder: of the run.
        notes, warnings: what was told on the way.
    """
    training = {name: value for name, value in report.items() if name not in _LEFT_OUT}
    # Those of a run that was finished before are in its report alone.
    told = list(dict.fromkeys((*warnings, *map(in_words_of_the_node, report.get("warnings", [])))))
    place = viewed(folder.plot)["subfolder"]
    return {**found, "training": {**training, "warnings": told, "notes": list(notes), "run": place}}


def viewed(path: Path) -> dict[str, str]:
    """What the host's ``/view`` wants to know of a picture below its output folder."""
    place = os.path.relpath(path.parent, folder_paths.get_output_directory())
    return {"filename": path.name, "subfolder": Path(place).as_posix(), "type": "output"}


def last_samples(folder: RunFolder) -> list[Path]:
    """The pictures of the newest moment."""
    moments = samples_of(folder)
    return [path for _, path in sorted(moments[max(moments)].items())] if moments else []


def image(path: Path) -> Tensor:
    """(1, height, width, 3) from 0 to 1, as the host's IMAGE."""
    import numpy
    from PIL import Image

    with Image.open(path) as opened:
        return torch.from_numpy(numpy.asarray(opened.convert("RGB")).astype(numpy.float32) / 255.0)[None]


def batch(paths: Sequence[Path]) -> Tensor:
    """Pictures of one size as one IMAGE; one black pixel where there are none."""
    return torch.cat([image(path) for path in paths]) if paths else torch.zeros(1, 1, 1, 3)
