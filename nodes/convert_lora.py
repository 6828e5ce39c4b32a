"""Convert LoRA: the same change in the words of another format, as a new file."""

from __future__ import annotations

import json
import os
from typing import Any

from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_api.latest import io

from ..lora_core import load_adapter
from ..lora_core.convert import DTYPES, FOLDERS, WRITERS, convert_lora
from ..lora_core.errors import LoomError
from . import _files, _inputs


class LoomConvertLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoomConvertLora",
            display_name="Convert LoRA",
            category=_inputs.CATEGORY,
            description="Writes a LoRA in another format; it changes every model as it did.",
            is_output_node=True,
            inputs=[
                io.Combo.Input("lora_name", options=_files.lora_names(), tooltip="A file of the loras folders."),
                io.Combo.Input(
                    "format",
                    options=list(WRITERS),
                    default=WRITERS[0],
                    tooltip="Names and scale in the new file. kohya is what most programs read; peft is a folder.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="same",
                    tooltip="Number type of the tensors in the new file. same: each tensor's own.",
                ),
                io.String.Input(
                    "filename",
                    default="loom/converted",
                    tooltip="Name in the loras folder; a number is counted up behind it, nothing is overwritten.",
                ),
            ],
            outputs=[
                _inputs.FileName.Output(
                    "lora_name", display_name="lora_name", tooltip="Name of the new file, for a LoRA loader."
                ),
                _inputs.report_output(),
            ],
        )

    @classmethod
    def validate_inputs(cls, lora_name: str | None = None, filename: str | None = None) -> bool | str:
        try:
            if filename is not None:
                _files.check_filename(filename, "loras")
        except LoomError as error:
            return error.message
        return _files.check_loras([(lora_name, "")] if lora_name else [])

    @classmethod
    def fingerprint_inputs(cls, lora_name: str | None = None, **_: Any) -> str:
        return _files.fingerprint([(lora_name, "")] if lora_name else [])

    @classmethod
    def execute(cls, lora_name: str, format: str, dtype: str, filename: str) -> io.NodeOutput:
        adapter = load_adapter(_files.lora_path(lora_name))
        bar = ProgressBar(100)

        def progress(part: int, whole: int) -> None:
            throw_exception_if_processing_interrupted()
            bar.update_absolute(int(100 * part / max(whole, 1)), 100)

        with _files.new_file("loras", filename, "" if format in FOLDERS else ".safetensors") as new:
            done = convert_lora(adapter, new.path, format, dtype=dtype, progress=progress)
        # Of a format that is a folder, the file in it that loaders list.
        name = os.path.normpath(os.path.join(new.name, os.path.relpath(done.files[0], new.path)))
        report = json.dumps(done.as_json(), ensure_ascii=False, indent=2)
        return io.NodeOutput(name, report, ui={"text": [f"{name}\n{report}"]})
