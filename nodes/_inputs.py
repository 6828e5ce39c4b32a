"""Inputs and outputs that several nodes share: one name, one tooltip.

Advanced inputs are marked through ``extra_dict``: hosts since 0.3.64 pass it on to the page, and the ``advanced``
argument is newer than that.
"""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

CATEGORY = "LoRA Loom"
ADVANCED: dict[str, Any] = {"advanced": True}


class _AnyInput(str):
    """A type that every input takes. The host compares types with ``!=``, and combo inputs of its older nodes have
    their list of choices as type, which no other type equals."""

    def __ne__(self, other: object) -> bool:
        return False


LoraStack = io.Custom("LORA_STACK")
LoraModel = io.Custom("LORA_MODEL")
Rows = io.Custom("LOOM_ROWS")
# The values are those of ``_train_types``.
Dataset = io.Custom("LOOM_DATASET")
TrainSettings = io.Custom("LOOM_TRAIN_SETTINGS")
# The name of a file that a node wrote, for the combo of a loader.
FileName = io.Custom(_AnyInput("*"))


def model_and_clip() -> list[io.Input]:
    return [
        io.Model.Input("model", optional=True, tooltip="Model that the LoRAs change; without it only CLIP changes."),
        io.Clip.Input("clip", optional=True, tooltip="The text encoders that the LoRAs change, if they have any."),
    ]


def strength(name: str, what: str) -> io.Input:
    return io.Float.Input(
        name,
        default=1.0,
        min=-100.0,
        max=100.0,
        step=0.01,
        tooltip=f"How strongly the LoRA changes {what}. 0 leaves it exactly as it is; negative turns it round.",
    )


def blocks() -> io.Input:
    return io.String.Input(
        "blocks",
        default="",
        optional=True,
        tooltip="Block weights: in04=0.5, mid=0, out1-3=1, or a vector with base first. base is what is in no block, "
        "the text encoders too. Empty: all at 1.",
        extra_dict=ADVANCED,
    )


def strict() -> io.Input:
    return io.Boolean.Input(
        "strict",
        default=False,
        optional=True,
        tooltip="Stop when a tensor of a LoRA is not used, instead of naming it in the report.",
        extra_dict=ADVANCED,
    )


def stack_input(optional: bool = True) -> io.Input:
    return LoraStack.Input(
        "lora_stack",
        optional=optional,
        tooltip="LoRAs with strengths, of this pack or another. They come first.",
    )


def trigger_words_output() -> io.Output:
    return io.String.Output("trigger_words", display_name="trigger_words", tooltip="From metadata and sidecar files.")


def report_output() -> io.Output:
    return io.String.Output(
        "report", display_name="report", tooltip="JSON: per file, what it is, what was used and what was not, and why."
    )
