"""Apply LoRA Stack: a list of LoRAs from elsewhere onto a model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..lora_core.rows import parse_stack
from . import _inputs
from ._apply import apply_items


class LoomApplyStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoomApplyStack",
            display_name="Apply LoRA Stack",
            category=_inputs.CATEGORY,
            description="Applies a LORA_STACK, of this pack or of another, to a model and its text encoders.",
            inputs=[*_inputs.model_and_clip(), _inputs.stack_input(optional=False), _inputs.strict()],
            outputs=[
                io.Model.Output("MODEL"),
                io.Clip.Output("CLIP"),
                _inputs.trigger_words_output(),
                _inputs.report_output(),
            ],
        )

    @classmethod
    def execute(cls, lora_stack: Any, model: Any = None, clip: Any = None, strict: bool = False) -> io.NodeOutput:
        done = apply_items(model, clip, parse_stack(lora_stack), strict)
        return io.NodeOutput(done.model, done.clip, done.trigger_words, done.report, ui=done.shown())
