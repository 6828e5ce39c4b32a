"""Save LoRA: a LORA_MODEL of this pack, the host or another pack, as a file of the loras folder."""

from __future__ import annotations

from typing import Any

from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_api.latest import io

from ..lora_core.convert import DTYPES, FOLDERS, WRITERS
from ..lora_core.errors import LoomError
from . import _files, _inputs
from ._save_lora import AS_IS, name_in, parse_metadata, save


class LoomSaveLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoomSaveLora",
            display_name="Save LoRA",
            category=_inputs.CATEGORY,
            description="Writes a LORA_MODEL, of this pack or ComfyUI's own training node, as a file.",
            is_output_node=True,
            inputs=[
                _inputs.LoraModel.Input("lora_model", tooltip="Of LoRA Train, LoRA Loader, or ComfyUI's own nodes."),
                io.String.Input(
                    "filename",
                    default="loom/lora",
                    tooltip="Name in the loras folder; a number is counted up behind it, nothing is overwritten.",
                ),
                io.Combo.Input(
                    "format",
                    options=[*WRITERS, AS_IS],
                    default=WRITERS[0],
                    tooltip="Names and scale in the file. kohya is what most programs read; peft is a folder; as it "
                    "is: the names that it has, for models that this pack does not know too.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="same",
                    tooltip="Number type of the tensors in the file. same: each tensor's own.",
                ),
                io.String.Input(
                    "metadata",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What the file says of itself: lines of key = value, or a JSON object of texts. title, "
                    "author, description, license, tags, trigger_words and comment go where programs look.",
                    extra_dict=_inputs.ADVANCED,
                ),
            ],
            outputs=[
                _inputs.FileName.Output(
                    "lora_name", display_name="lora_name", tooltip="Name of the new file, for a LoRA loader."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, filename: str | None = None) -> bool | str:
        try:
            if filename is not None:
                _files.check_filename(filename, "loras")
        except LoomError as error:
            return error.message
        return True

    @classmethod
    def execute(cls, lora_model: Any, filename: str, format: str, dtype: str, metadata: str = "") -> io.NodeOutput:
        said = parse_metadata(metadata)
        bar = ProgressBar(100)

        def progress(part: int, whole: int) -> None:
            throw_exception_if_processing_interrupted()
            bar.update_absolute(int(100 * part / max(whole, 1)), 100)

        with _files.new_file("loras", filename, "" if format in FOLDERS else ".safetensors") as new:
            done = save(lora_model, new.path, format, dtype, said, progress)
        name = name_in(new.name, new.path, done.file)
        left_out = [f"left out: {key}: {why}" for key, why in done.left_out.items()]
        return io.NodeOutput(name, ui={"text": ["\n".join([name, *left_out])]})
