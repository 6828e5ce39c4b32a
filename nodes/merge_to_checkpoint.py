"""Merge to Checkpoint: a stack written into the weights of a checkpoint, as a new file."""

from __future__ import annotations

import json
from typing import Any

from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_api.latest import io

from ..lora_core.errors import LoomError
from ..lora_core.merge import DTYPES, merge_to_checkpoint, open_checkpoint
from ..lora_core.rows import parse_stack
from . import _files, _inputs
from ._apply import read_stack

TEXT_CHOICES = ("merge", "keep")
OWN_VAE = "the checkpoint's own"


class LoomMergeToCheckpoint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoomMergeToCheckpoint",
            display_name="Merge to Checkpoint",
            category=_inputs.CATEGORY,
            description="Writes a checkpoint with the LoRAs in its weights, with the same numbers as the live stack.",
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "ckpt_name",
                    options=_files.merge_sources(),
                    tooltip="The checkpoint or diffusion model to start from. It is not changed.",
                ),
                _inputs.stack_input(optional=False),
                io.String.Input(
                    "filename",
                    default="loom/merged",
                    tooltip="Name in the folder of its kind; a number is counted up behind it, nothing is overwritten.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="same",
                    tooltip="Number type of the weights in the new file. same: each tensor's own.",
                ),
                io.Combo.Input(
                    "text_encoders",
                    options=list(TEXT_CHOICES),
                    default=TEXT_CHOICES[0],
                    optional=True,
                    tooltip="Merge into the text encoders too, or keep them as the checkpoint has them.",
                    extra_dict=_inputs.ADVANCED,
                ),
                io.Combo.Input(
                    "vae_name",
                    options=[OWN_VAE, *_files.vae_names()],
                    default=OWN_VAE,
                    optional=True,
                    tooltip="A file of the vae folders that takes the place of the checkpoint's VAE.",
                    extra_dict=_inputs.ADVANCED,
                ),
                _inputs.strict(),
            ],
            outputs=[
                _inputs.FileName.Output(
                    "ckpt_name",
                    display_name="ckpt_name",
                    tooltip="Name of the new file, for a loader of its kind or for Demo Model.",
                ),
                _inputs.report_output(),
            ],
        )

    @classmethod
    def validate_inputs(cls, filename: str | None = None) -> bool | str:
        try:
            if filename is not None:
                _files.check_filename(filename, "checkpoints")
        except LoomError as error:
            return error.message
        return True

    @classmethod
    def fingerprint_inputs(cls, ckpt_name: str | None = None, vae_name: str | None = OWN_VAE, **_: Any) -> str:
        vae = "" if vae_name in (None, OWN_VAE) else _files.fingerprint_vae(vae_name)
        return f"{_files.fingerprint_checkpoint(ckpt_name)}|{vae}"

    @classmethod
    def execute(
        cls,
        ckpt_name: str,
        lora_stack: Any,
        filename: str,
        dtype: str,
        text_encoders: str = TEXT_CHOICES[0],
        vae_name: str = OWN_VAE,
        strict: bool = False,
    ) -> io.NodeOutput:
        source, kind = _files.merge_source(ckpt_name)
        checkpoint = open_checkpoint(source)
        stack = read_stack(parse_stack(lora_stack), checkpoint.architecture)
        bar = ProgressBar(100)
        with _files.new_file(kind, filename) as new:
            done = merge_to_checkpoint(
                checkpoint,
                stack,
                new.path,
                dtype=dtype,
                text_encoders=text_encoders == TEXT_CHOICES[0],
                vae=None if vae_name == OWN_VAE else _files.vae_path(vae_name),
                strict=strict,
                progress=lambda part, whole: bar.update_absolute(int(100 * part / max(whole, 1)), 100),
                # The host's cancel is a BaseException; the merge removes its unfinished file and lets it through.
                cancel=throw_exception_if_processing_interrupted,
            )
        report = json.dumps([done.as_json()], ensure_ascii=False, indent=2)
        return io.NodeOutput(new.name, report, ui={"text": [f"{new.name}\n{report}"]})
