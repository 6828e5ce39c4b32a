"""What the engine makes of the pictures that a graph names: its own reading, its own errors, and a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..lora_core.errors import ConfigError
from ._dataset_sheet import MOST, draw
from ._settings_rows import data_rows
from ._settings_table import table
from ._settings_values import in_inputs
from ._train_types import Dataset

_SHOWN = 5
# Sides of pictures are multiples of it in every model.
_SIZE_STEP = 8


@dataclass(frozen=True, slots=True)
class Reading:
    """Pictures and captions as a run would see them.

    Args:
        rules: the engine's ``DataSection``.
        plan: the engine's ``Plan``.
        sized: whether the resolution is known, so that sizes say something.
    """

    rules: Any
    plan: Any
    sized: bool

    @property
    def trained(self) -> list[Any]:
        """Pictures to be learned, without those of the class and those held out."""
        indices = {index for some in self.plan.pictures_of.values() for index in some}
        return [self.plan.pictures[index] for index in sorted(indices)]


def read(dataset: Dataset) -> Reading:
    """Find pictures and captions; their pixels are not decoded.

    Raises:
        ConfigError: no pictures, no captions, settings that cannot work; by the names of LoRA Dataset's inputs.
        CorruptFileError, UnknownNameError: a picture or a table that cannot be read, a column that is not in it.
    """
    from ..lora_core.train.config import parse_config
    from ..lora_core.train.data.planning import plan

    try:
        config = parse_config(
            {"model": {"base": "base"}, "data": dataset.data, "validation": dataset.validation}, "LoRA Dataset"
        )
        rules, sized = config.data, "resolution" in dataset.data
        if not sized:  # how far pictures are from a resolution that nobody has chosen is no news
            rules = rules.model_copy(update={"upscale": True})
        return Reading(rules, plan(rules, config.validation, _SIZE_STEP), sized)
    except ConfigError as error:
        known = {**data_rows(), **{key: table().rows[f"data.{key}"] for key in ("folder", "resolution")}}
        faults = [in_inputs(fault, known) for fault in error.faults]
        raise ConfigError(in_inputs(error.where, known), faults) from None


def report(reading: Reading, folder: str) -> Mapping[str, Any]:
    """For people and programs, as JSON.

    Args:
        folder: as the graph names it.
    """
    from ..lora_core.train.data.captions import plain_caption

    plan, trained = reading.plan, reading.trained
    priors = sum(picture.prior for picture in plan.pictures)
    said: dict[str, Any] = {
        "folder": folder,
        "pictures": {"trained": len(trained), "of_the_class": priors, "held_out": len(plan.held_out)},
        "epoch": sum(map(len, plan.pictures_of.values())),
        "repeats": {str(times): count for times, count in sorted(Counter(each.repeats for each in trained).items())},
        "captions": {
            "without": sum(not any(picture.captions) for picture in trained),
            "first": {each.name: plain_caption(each.captions, reading.rules) for each in trained[:_SHOWN]},
        },
    }
    if reading.sized:
        sizes = {size: len(set(indices)) for size, indices in sorted(plan.pictures_of.items())}
        said["sizes"] = {f"{width}x{height}": count for (width, height), count in sizes.items()}
    return {**said, "notes": list(plan.notes)}


def sheet(reading: Reading, folder: str) -> torch.Tensor:
    """Up to 24 of the pictures to be learned, spread over all, with their captions: an IMAGE of the host.

    Raises:
        CorruptFileError: one of them cannot be decoded.
    """
    from ..lora_core.train.data.captions import plain_caption
    from ..lora_core.train.data.pixels import decode, on_white, unchanged_bytes

    trained = reading.trained
    count = min(MOST, len(trained))
    chosen = [trained[number * len(trained) // count] for number in range(count)]
    title = f"{folder}: {len(trained)} pictures" + (f", {count} of them" if count < len(trained) else "")
    pictures = [
        (on_white(decode(unchanged_bytes(each), each.name)), plain_caption(each.captions, reading.rules))
        for each in chosen
    ]
    return draw(pictures, title)
