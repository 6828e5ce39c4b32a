"""Inputs of LoRA Train -> the engine's settings.

preset of the model's family  <  what the host decides  <  LoRA Train Settings, dataset  <  LoRA Train's own inputs
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import folder_paths
import torch
from comfy import model_management

from ..lora_core.errors import ConfigError
from ..lora_core.train.config import TrainConfig, parse_config
from ..lora_core.train.config.presets import preset_for, preset_values
from . import _files
from ._host_models import has_guidance
from ._host_schedule import prediction_of
from ._train_types import Dataset, TrainSettings

AUTO = "auto-"
DEFAULT = TrainSettings(f"{AUTO}style", {})
# A folder of a whole LoRA is not in the host's list.
FOLDERS = ("peft",)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# The host has no files of the MODEL to name, and runs go by what is in it.
BASE = "MODEL of the graph"

# Pixels a side that a CPU draws in seconds.
_SMALL = 128

Table = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Own:
    """LoRA Train's own inputs; 0 leaves a number to the settings and the preset."""

    name: str
    steps: int
    rank: int
    learning_rate: float


def compose(own: Own, dataset: Dataset, settings: TrainSettings | None, architecture: str, model: Any, clip: Any):
    """The settings of a run.

    Args:
        own: inputs of the node.
        dataset, settings: of the nodes before it.
        architecture: name of the MODEL's family.
        model, clip: the host's.

    Raises:
        ConfigError: all faults at once, in the names of the settings.
    """
    settings = settings or DEFAULT
    preset = settings.preset
    if preset.startswith(AUTO):
        prediction = prediction_of(model.get_model_object("model_sampling"))
        preset = preset_for(architecture, preset.removeprefix(AUTO), prediction)
    given: Table = {section: dict(values) for section, values in settings.values.items()}
    _over(given, {"data": dataset.data, "validation": dataset.validation})
    if given["validation"].get("folder"):  # then none of the others are held out, whatever the preset says
        given["validation"].setdefault("split", 0.0)
    _over(given, _own(own, given, preset_values(preset)))
    decided = _decided(model, clip, own.name, given)
    if preset.startswith("flux") and not has_guidance(model.model):
        decided["samples"] = {"guidance": 1.0}  # distilled without one, as schnell: more would burn its pictures
    config = parse_config({"preset": preset, **_joined(decided, given)}, "LoRA Train")
    if not (config.network.train or config.text_encoder.train):
        fault = "network.train: nothing but words is trained, which makes no LoRA; set it, or use `loom train`"
        raise ConfigError("LoRA Train", [fault])
    return config


def with_prompts(config: TrainConfig, captions_of: Callable[[TrainConfig], list[str]]) -> TrainConfig:
    """Where no prompts are set: pictures of some captions, a few times on the way.

    A CPU takes minutes for each picture of the usual size, so there none are drawn unasked.
    """
    slow = config.run.device == "cpu" and max(config.data.resolution) > _SMALL
    if config.samples.prompts or slow or not (captions := captions_of(config)):
        return config
    every = config.samples.every or (-(-config.run.steps // 4) if config.run.steps >= 100 else 0)
    samples = config.samples.model_copy(update={"prompts": tuple(captions), "every": every})
    return config.model_copy(update={"samples": samples})


def place(name: str) -> tuple[Path, Path, str]:
    """The folder of the LoRA, that of the run's own files, and the name without folders.

    Raises:
        ConfigError: the name leaves the loras folder.
    """
    _files.check_filename(name, "loras", "name")
    path = PurePosixPath(name.replace("\\", "/").removesuffix(".safetensors"))
    loras = Path(folder_paths.get_folder_paths("loras")[0])
    runs = _files.runs_folder()
    return loras / path.parent, runs / path.parent, path.name


def lost(name: str) -> str:
    """Not empty where there was a run of this name, and its LoRA is not there."""
    try:
        folder, runs, stem = place(name)
    except ConfigError:
        return ""
    run = runs / f"{stem}.run" / "loss.csv"
    return str(run.stat().st_mtime_ns) if run.exists() and not (folder / f"{stem}.safetensors").exists() else ""


def compute_dtype(config: TrainConfig) -> torch.dtype:
    return DTYPES[config.run.precision]


def _own(own: Own, given: Mapping[str, Mapping[str, Any]], preset: Mapping[str, Mapping[str, Any]]) -> Table:
    """The node's own numbers. An alpha that only the preset sets keeps its proportion to the rank."""
    found: Table = {"run": {}, "network": {}, "optimizer": {}}
    if own.steps:
        found["run"]["steps"] = own.steps
    if own.learning_rate:
        found["optimizer"]["learning_rate"] = own.learning_rate
    if own.rank:
        found["network"]["rank"] = own.rank
        usual, alpha = preset.get("network", {}).get("rank"), preset.get("network", {}).get("alpha")
        if "alpha" not in given.get("network", {}) and usual and alpha:
            found["network"]["alpha"] = own.rank * alpha / usual
    return found


def _decided(model: Any, clip: Any, name: str, given: Mapping[str, Mapping[str, Any]]) -> Table:
    """What follows from the host: device, number types, folders."""
    device = model.load_device
    precision = given.get("run", {}).get("precision") or _precision(device)
    folder, runs, stem = place(name)
    if (format := given.get("output", {}).get("format")) in FOLDERS:
        fault = f"output.format: {format} is a folder, which no list of LoRAs shows; choose another, or use Save LoRA"
        raise ConfigError("LoRA Train", [fault])
    return {
        "model": {"base": BASE, "dtype": precision, "clip_skip": _clip_skip(clip)},
        "run": {
            "device": str(device),
            "precision": precision,
            # To look at a loss costs a GPU a wait, and a CPU nothing.
            "log_every": 1 if device.type == "cpu" else 10,
        },
        "output": {
            "folder": os.fspath(folder),
            "runs": os.fspath(runs),
            "name": stem,
            "state_every": 100,
            "tensorboard": importlib.util.find_spec("tensorboard") is not None,
        },
    }


def _precision(device: torch.device) -> str:
    if device.type == "cpu":
        return "fp32"
    return "bf16" if model_management.should_use_bf16(device, prioritize_performance=False) else "fp16"


def _clip_skip(clip: Any) -> int:
    """The engine counts layers that are left out, the host from the end."""
    return max(0, -1 - clip.layer_idx) if clip.layer_idx is not None else 0


def _over(below: Table, above: Mapping[str, Mapping[str, Any]]) -> None:
    for section, values in above.items():
        below.setdefault(section, {}).update(values)


def _joined(*layers: Mapping[str, Mapping[str, Any]]) -> Table:
    whole: Table = {}
    for layer in layers:
        _over(whole, layer)
    return whole
