"""Inspect LoRA: what a file is, without a model."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from ..lora_core import load_adapter
from ..lora_core.finite import check_finite
from ..lora_core.inspect import inspect_file
from ..lora_core.norms import file_norms
from . import _files, _inputs
from ._table import draw


class LoomInspectLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoomInspectLora",
            display_name="Inspect LoRA",
            category=_inputs.CATEGORY,
            description="Says what a LoRA file is: format, base model, ranks, trigger words, and where it acts.",
            is_output_node=True,
            inputs=[io.Combo.Input("lora_name", options=_files.lora_names(), tooltip="A file of the loras folders.")],
            outputs=[
                _inputs.report_output(),
                io.Image.Output("table", tooltip="The norm of the change in each block of the model."),
                _inputs.trigger_words_output(),
            ],
        )

    @classmethod
    def validate_inputs(cls, lora_name: str | None = None) -> bool | str:
        return _files.check_loras([(lora_name, "")] if lora_name else [])

    @classmethod
    def fingerprint_inputs(cls, lora_name: str | None = None) -> str:
        return _files.fingerprint([(lora_name, "")] if lora_name else [])

    @classmethod
    def execute(cls, lora_name: str) -> io.NodeOutput:
        path = _files.lora_path(lora_name)
        found: dict[str, Any] = inspect_file(path)
        adapter = load_adapter(path)
        check_finite(adapter)
        table = draw(f"{adapter.file}, {found['architecture']}", file_norms(path))
        report = json.dumps([found], ensure_ascii=False, indent=2)
        return io.NodeOutput(report, table, ", ".join(found["trigger_words"]), ui={"text": [report]})
