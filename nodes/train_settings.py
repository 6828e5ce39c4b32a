"""LoRA Train Settings: all that a training run is told besides its model, its pictures and LoRA Train's own inputs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..lora_core.convert import FOLDERS, WRITERS
from . import _files, _inputs
from ._settings import engine, input_of
from ._settings_check import check, more_values, over
from ._settings_rows import AUTO, MAIN, rows
from ._settings_table import table
from ._settings_values import PRESET, values_of
from ._train_types import TrainSettings

NO_FILE = "(none)"
CONTINUE = "network_continue_from"


class LoomTrainSettings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        known = rows()
        # A format that is a folder is no one file in the list of LoRAs.
        own: dict[str, list[str]] = {
            "output_format": [PRESET, *(name for name in WRITERS if name not in FOLDERS)],
            CONTINUE: [NO_FILE, *_files.lora_names()],
        }
        main = [input_of(name, known[name], False, own.get(name, ())) for name in MAIN]
        rest = [input_of(name, row, True, own.get(name, ())) for name, row in known.items() if name not in MAIN]
        return io.Schema(
            node_id="LoomTrainSettings",
            display_name="LoRA Train Settings",
            category=_inputs.CATEGORY,
            description="Settings for LoRA Train: a preset, and what is to be different from it.",
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=[*AUTO, *table().presets],
                    default=AUTO[0],
                    tooltip="Settings to start from. auto takes those of the connected model's family, for a style, a "
                    "subject or a character. What is left alone here is as the preset says.",
                ),
                *main,
                # Before the rest, which grows at its end with the engine: a saved graph goes by the places.
                io.String.Input(
                    "more",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Settings as lines of the command line's TOML file, network.alpha = 8. They go over the "
                    "inputs.",
                    extra_dict=_inputs.ADVANCED,
                ),
                *rest,
            ],
            outputs=[_inputs.TrainSettings.Output("settings", tooltip="For LoRA Train.")],
        )

    @classmethod
    def validate_inputs(cls, network_continue_from: str | None = None) -> bool | str:
        return _files.check_loras(_named(network_continue_from))

    @classmethod
    def fingerprint_inputs(cls, network_continue_from: str | None = None, **_: Any) -> str:
        return _files.fingerprint(_named(network_continue_from))

    @classmethod
    def execute(cls, preset: str, more: str = "", **given: Any) -> io.NodeOutput:
        if CONTINUE in given:
            given[CONTINUE] = "".join(_files.lora_path(name) for name, _ in _named(given[CONTINUE]))
        with engine("LoRA Train Settings"):
            values = over(values_of(rows(), given), more_values(more))
            check(preset, values)
        return io.NodeOutput(TrainSettings(preset, values))


def _named(name: str | None) -> list[tuple[str, str]]:
    return [] if name in (None, NO_FILE) else [(name, "")]
