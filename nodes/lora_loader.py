"""LoRA Loader: one file onto a model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..lora_core.rows import StackItem
from . import _files, _inputs
from ._apply import apply_items
from ._lora_model import lora_model


class LoomLoraLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoomLoraLoader",
            display_name="LoRA Loader",
            category=_inputs.CATEGORY,
            description="Loads a LoRA in any format onto a model and its text encoders, and says how much of it fits.",
            inputs=[
                *_inputs.model_and_clip(),
                io.Combo.Input("lora_name", options=_files.lora_names(), tooltip="A file of the loras folders."),
                _inputs.strength("strength_model", "the model"),
                _inputs.strength("strength_clip", "the text encoders"),
                _inputs.blocks(),
                _inputs.strict(),
            ],
            outputs=[
                io.Model.Output("MODEL"),
                io.Clip.Output("CLIP"),
                _inputs.LoraModel.Output(
                    "LORA_MODEL", tooltip="The tensors of the file, for the host's nodes that take them."
                ),
                _inputs.trigger_words_output(),
                _inputs.report_output(),
            ],
        )

    @classmethod
    def validate_inputs(cls, lora_name: str | None = None) -> bool | str:
        return _files.check_loras([(lora_name, "")] if lora_name else [])

    @classmethod
    def fingerprint_inputs(cls, lora_name: str | None = None, **_: Any) -> str:
        return _files.fingerprint([(lora_name, "")] if lora_name else [])

    @classmethod
    def execute(
        cls,
        lora_name: str,
        strength_model: float,
        strength_clip: float,
        model: Any = None,
        clip: Any = None,
        blocks: str = "",
        strict: bool = False,
    ) -> io.NodeOutput:
        item = StackItem(lora_name, strength_model, strength_clip, blocks)
        done = apply_items(model, clip, [item], strict)
        tensors = lora_model(done.adapters[0], model)
        return io.NodeOutput(done.model, done.clip, tensors, done.trigger_words, done.report, ui=done.shown())
