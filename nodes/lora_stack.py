"""LoRA Stack: several LoRAs at once, fused to one patch a weight."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..lora_core.errors import LoomError
from ..lora_core.rows import StackItem, parse_rows, parse_stack, stack_items
from . import _files, _inputs
from ._apply import apply_items


class LoomLoraStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoomLoraStack",
            display_name="LoRA Stack",
            category=_inputs.CATEGORY,
            description="Applies a list of LoRAs in its order, one change a weight, and hands the list on.",
            inputs=[
                *_inputs.model_and_clip(),
                _inputs.stack_input(),
                # The page's widget of this type holds the list; the host would turn a list that is a STRING into
                # Python's notation.
                # No tooltip: the page would show it over the rows wherever the mouse is.
                _inputs.Rows.Input("rows", extra_dict={"default": []}),
                _inputs.strict(),
            ],
            outputs=[
                io.Model.Output("MODEL"),
                io.Clip.Output("CLIP"),
                _inputs.LoraStack.Output("LORA_STACK", tooltip="The LoRAs that came in, then the rows that are on."),
                _inputs.trigger_words_output(),
                _inputs.report_output(),
            ],
        )

    @classmethod
    def validate_inputs(cls, rows: Any = None) -> bool | str:
        try:
            return _files.check_loras([(item[0], item.hash) for item in _items(rows)])
        except LoomError as error:
            return error.message

    @classmethod
    def fingerprint_inputs(cls, rows: Any = None, **_: Any) -> str:
        return _files.fingerprint([(item[0], item.hash) for item in _items(rows)])

    @classmethod
    def execute(
        cls, rows: Any = None, model: Any = None, clip: Any = None, lora_stack: Any = None, strict: bool = False
    ) -> io.NodeOutput:
        own = parse_rows(rows)
        incoming = parse_stack(lora_stack)
        items = [_files.resolved(item) for item in (*incoming, *stack_items(own))]
        places = [*(None for _ in incoming), *(place for place, row in enumerate(own) if row.active)]
        done = apply_items(model, clip, items, strict)
        return io.NodeOutput(done.model, done.clip, items, done.trigger_words, done.report, ui=done.shown(places))


def _items(rows: Any) -> list[StackItem]:
    return stack_items(parse_rows(rows))
