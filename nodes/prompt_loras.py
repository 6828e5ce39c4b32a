"""LoRAs from Prompt: ``<lora:name:0.8>`` tags of a text as a LORA_STACK."""

from __future__ import annotations

import contextlib
from typing import Any

from comfy_api.latest import io

from ..lora_core.errors import LoomError
from ..lora_core.prompt import DIALECTS, parse_prompt
from ..lora_core.rows import StackItem, parse_stack
from . import _files, _inputs


class LoomPromptLoras(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoomPromptLoras",
            display_name="LoRAs from Prompt",
            category=_inputs.CATEGORY,
            description="Takes the <lora:name:strength> tags out of a prompt and makes a LORA_STACK of them.",
            inputs=[
                io.String.Input(
                    "text",
                    multiline=True,
                    default="",
                    dynamic_prompts=True,
                    tooltip="A prompt with tags such as <lora:ink:0.8>.",
                ),
                io.Combo.Input(
                    "dialect",
                    options=list(DIALECTS),
                    default="a1111",
                    tooltip="Whose tags they are. With two numbers a1111 means text encoder, model; "
                    "lora-manager means model, text encoder.",
                ),
                _inputs.stack_input(),
            ],
            outputs=[
                io.String.Output("text", tooltip="The prompt without its tags."),
                _inputs.LoraStack.Output("LORA_STACK", tooltip="The LoRAs that came in, then those of the prompt."),
            ],
        )

    @classmethod
    def validate_inputs(cls, text: str | None = None) -> bool | str:
        # The host repeats a fault for each input that is asked for here, so the dialect is not: what a tag means
        # is its business, what is a name is the same in all. Other faults are raised when the node runs.
        for dialect in DIALECTS:
            with contextlib.suppress(LoomError):
                return _files.check_loras([(item[0], "") for item in _items(text, dialect)])
        return True

    @classmethod
    def fingerprint_inputs(cls, text: str | None = None, dialect: str | None = None, **_: Any) -> str:
        return _files.fingerprint([(item[0], "") for item in _items(text, dialect)])

    @classmethod
    def execute(cls, text: str, dialect: str, lora_stack: Any = None) -> io.NodeOutput:
        prompt = parse_prompt(text, dialect)
        items = [*parse_stack(lora_stack), *(_files.resolved(lora.item) for lora in prompt.loras)]
        return io.NodeOutput(prompt.text, items, ui={"text": list(prompt.notes)} if prompt.notes else None)


def _items(text: str | None, dialect: str | None) -> list[StackItem]:
    return [lora.item for lora in parse_prompt(text, dialect).loras] if text and dialect else []
