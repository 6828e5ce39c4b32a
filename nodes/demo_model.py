"""Demo Model: the small model that comes with the pack, or a checkpoint that was merged from it."""

from __future__ import annotations

from comfy_api.latest import io

from . import _files, _inputs


class LoomDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoomDemoModel",
            display_name="Demo Model",
            category=_inputs.CATEGORY,
            description="A small text-to-image model of emoji, 64 by 64 pixels, that comes with the pack. It draws on "
            "a CPU in seconds, so the example workflows run anywhere.",
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=_files.demo_checkpoints(),
                    default=_files.BUILT_IN,
                    optional=True,
                    tooltip="The built-in model, or a checkpoint that Merge to Checkpoint made of it.",
                    extra_dict=_inputs.ADVANCED,
                )
            ],
            outputs=[io.Model.Output("MODEL"), io.Clip.Output("CLIP"), io.Vae.Output("VAE")],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str | None = None) -> bool | str:
        return _files.check_checkpoint(checkpoint)

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str | None = None) -> str:
        return _files.fingerprint_checkpoint(checkpoint)

    @classmethod
    def execute(cls, checkpoint: str = _files.BUILT_IN) -> io.NodeOutput:
        # Here, not above: it asks the host for a dozen of its modules, and loading the pack is to cost nothing.
        from ._demo_model import load_demo

        return io.NodeOutput(*load_demo(_files.DEMO_MODEL, _files.checkpoint_path(checkpoint)))
