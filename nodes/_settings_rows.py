"""Which node has which of the engine's settings, and under what name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from ._settings_table import Row, table

# The preset of the connected model's family, for a purpose.
AUTO = ("auto-style", "auto-subject", "auto-character")

# Of LoRA Train Settings, what most people look for; everything else is advanced.
MAIN = (
    "network_type",
    "network_alpha",
    "network_targets",
    "network_conv_rank",
    "text_encoder_train",
    "text_encoder_learning_rate",
    "optimizer_name",
    "optimizer_schedule",
    "optimizer_warmup",
    "run_batch",
    "run_accumulate",
    "run_seed",
    "run_precision",
    "run_checkpointing",
    "samples_prompts",
    "samples_negative",
    "samples_every",
    "samples_steps",
    "samples_guidance",
    "output_save_every",
    "output_format",
    "output_dtype",
)
# Of LoRA Dataset; resolution is one number there and has an input of its own.
MAIN_DATA = ("repeats", "caption", "trigger", "validation_split")

_LORA_TRAIN = "is what LoRA Train sets"
_DATASET = "is an input of LoRA Dataset"
# Dotted name, or a table -> why it is no input of LoRA Train Settings.
ELSEWHERE = {
    "preset": "is the input preset",
    "model": "is what the connected model says",
    "data": _DATASET,
    "validation": _DATASET,
    "network.rank": _LORA_TRAIN,
    "optimizer.learning_rate": _LORA_TRAIN,
    "run.steps": _LORA_TRAIN,
    "run.device": _LORA_TRAIN,
    "output.folder": _LORA_TRAIN,
    "output.runs": _LORA_TRAIN,
    "output.name": _LORA_TRAIN,
}
# A cache is kept by LoRA Train, and the input folder is no place for pictures that a run draws.
_NOT_DATA = ("data.folder", "data.resolution", "data.cache", "data.prior.generate")


def elsewhere(name: str) -> str:
    """Why a setting is no input of LoRA Train Settings; "" if it is one."""
    return ELSEWHERE.get(name) or ELSEWHERE.get(name.partition(".")[0], "")


@cache
def rows() -> Mapping[str, Row]:
    """Input of LoRA Train Settings -> setting: ``network_alpha``."""
    return MappingProxyType(
        {name.replace(".", "_"): row for name, row in table().rows.items() if not elsewhere(row.name)}
    )


@cache
def data_rows() -> Mapping[str, Row]:
    """Input of LoRA Dataset -> setting: ``repeats``, ``prior_folder``, ``validation_split``."""
    return MappingProxyType(
        {
            name.removeprefix("data.").replace(".", "_"): row
            for name, row in table().rows.items()
            if name.startswith(("data.", "validation.")) and name not in _NOT_DATA
        }
    )
