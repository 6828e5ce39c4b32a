"""LoRA Dataset: pictures and captions to learn from, out of a folder or of the graph."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from ..lora_core.errors import ConfigError, LoomError
from . import _inputs
from ._dataset_folders import DEMOS, NO_FOLDER, demo_tables, folder_names, folder_path, picture_folders, state_of
from ._dataset_pictures import keep
from ._settings import engine, input_of
from ._settings_rows import MAIN_DATA, data_rows
from ._settings_values import put, values_of
from ._train_types import Dataset

# Inputs that name folders.
FOLDERS = ("prior_folder", "validation_folder")


class LoomTrainDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        known = data_rows()
        own = {name: [NO_FOLDER, *picture_folders()] for name in FOLDERS}
        main = [input_of(name, known[name], False) for name in MAIN_DATA]
        rest = [input_of(name, row, True, own.get(name, ())) for name, row in known.items() if name not in MAIN_DATA]
        return io.Schema(
            node_id="LoomTrainDataset",
            display_name="LoRA Dataset",
            category=_inputs.CATEGORY,
            description="Pictures and captions for LoRA Train: a folder of the input folder, or pictures of the graph.",
            # Pictures of different sizes come as a list of batches, and captions as a list of texts.
            is_input_list=True,
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=folder_names(),
                    default=NO_FOLDER,
                    tooltip="A folder inside ComfyUI's input folder: pictures with metadata.jsonl or .csv, a text file "
                    "each, or kohya's folders. (none): connect images.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Pictures of the graph, a batch or a list of batches, in the place of a folder. They are "
                    "kept in output/loom/datasets.",
                ),
                io.String.Input(
                    "captions",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Of images: a list of texts, or a line a picture; a single line is for all of them.",
                ),
                io.Int.Input(
                    "resolution",
                    default=0,
                    min=0,
                    max=8192,
                    step=8,
                    optional=True,
                    tooltip="Side in pixels that pictures are trained at; other proportions have the same area. "
                    "0: as the preset says.",
                ),
                *main,
                *rest,
            ],
            outputs=[
                _inputs.Dataset.Output("dataset", tooltip="For LoRA Train."),
                io.Image.Output("preview", tooltip="Up to 24 of the pictures with their captions."),
                io.String.Output("report", tooltip="JSON: how many pictures, captions and sizes, and notes."),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: list[str | None] | None = None) -> bool | str:
        try:
            for name in folder or []:
                if name is not None and name != NO_FOLDER and name not in DEMOS:
                    folder_path(name, "folder")
        except LoomError as error:
            return error.message
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: list[str | None] | None = None, **others: Any) -> str:
        names = [*(folder or ()), *(name for each in FOLDERS for name in others.get(each) or ())]
        return state_of([name for name in names if name])

    @classmethod
    def execute(
        cls,
        folder: list[str],
        images: list[Any] | None = None,
        captions: list[str] | None = None,
        resolution: list[int] | None = None,
        **given: list[Any],
    ) -> io.NodeOutput:
        name, size = _one("folder", folder), _one("resolution", resolution or [0])
        settings = {each: _one(each, value) for each, value in given.items()}
        with engine("LoRA Dataset"):
            from ._dataset_plan import read, report, sheet

            dataset = _dataset(_source(name, images, captions), settings, size)
            reading = read(dataset)
            shown = "images" if images else name
            said = json.dumps(report(reading, shown), ensure_ascii=False, indent=2)
            return io.NodeOutput(dataset, sheet(reading, shown), said)


def _one(name: str, values: list[Any]) -> Any:
    """The value of an input that is no list."""
    if len(values) != 1:
        raise ConfigError(name, [f"expected one value, got a list of {len(values)}"])
    return values[0]


def _source(name: str, images: list[Any] | None, captions: list[str] | None) -> dict[str, Any]:
    """Tables of the engine with the pictures' folder in them, and what else is the demo's.

    Raises:
        ConfigError: not one of a folder and pictures, or captions without pictures.
    """
    if images:
        if name != NO_FOLDER:
            fault = f"got the folder {name!r} and pictures at the input images; choose {NO_FOLDER}, or disconnect them"
            raise ConfigError("folder", [fault])
        return {"data": {"folder": str(keep(images, captions))}}
    if name == NO_FOLDER:
        raise ConfigError("folder", ["no pictures are given: choose a folder, or connect images"])
    if any(text.strip() for text in captions or []):
        raise ConfigError("captions", ["they go with images; those of a folder are in its metadata or text files"])
    return demo_tables(name) if name in DEMOS else {"data": {"folder": str(folder_path(name, "folder"))}}


def _dataset(source: dict[str, Any], settings: dict[str, Any], resolution: int) -> Dataset:
    """What the user set, over what came with the pictures."""
    for name in FOLDERS:
        if name in settings:
            chosen = settings[name]
            settings[name] = "" if chosen == NO_FOLDER else str(folder_path(chosen, name))
    given = values_of(data_rows(), settings)
    data, validation = given.get("data", {}), given.get("validation", {})
    if resolution:
        put(data, "resolution", resolution)
    held = source.get("validation", {})
    if "split" in validation or "folder" in validation:  # the user's choice of what is held out, in place of the demo's
        held = {key: value for key, value in held.items() if key not in ("folder", "select")}
    prior = {**source["data"].get("prior", {}), **data.get("prior", {})}
    return Dataset(
        {**source["data"], **data, **({"prior": prior} if prior else {})},
        {**held, **validation},
    )
