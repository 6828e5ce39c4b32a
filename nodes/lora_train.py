"""LoRA Train: the engine of ``lora_core.train`` on the MODEL, CLIP and VAE of the graph."""

from __future__ import annotations

import json
from typing import Any

import torch
from comfy.model_management import InterruptProcessingException
from comfy_api.latest import io

from ..lora_core import load_adapter
from ..lora_core.errors import LoomError
from ..lora_core.inspect import inspect_file
from . import _files, _inputs
from ._lora_model import lora_model
from ._train_types import Dataset, TrainSettings

RESUME = ("auto", "never", "must")


class LoomLoraTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoomLoraTrain",
            display_name="LoRA Train",
            category=_inputs.CATEGORY,
            description="Trains a LoRA on the connected model. It shows its loss and samples while it runs; cancelled, "
            "it saves and goes on when the graph runs again; run again unchanged, it does not train again.",
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The model to train on, with the LoRAs that the graph put on it."),
                io.Clip.Input("clip", tooltip="Its text encoders. They read the captions, and are trained if set so."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                _inputs.Dataset.Input("dataset", tooltip="Pictures and captions, of LoRA Dataset."),
                _inputs.TrainSettings.Input(
                    "settings",
                    optional=True,
                    tooltip="Of LoRA Train Settings. Without it the preset of the model's family for a style is used.",
                ),
                io.String.Input(
                    "name",
                    default="my_lora",
                    tooltip="Of the file in the loras folder, and of the run, which is gone on with under this name.",
                ),
                io.Int.Input(
                    "steps", default=0, min=0, max=1_000_000, tooltip="Steps of the optimizer. 0: as the preset says."
                ),
                io.Int.Input("rank", default=0, min=0, max=4096, tooltip="Of the LoRA. 0: as the preset says."),
                io.Float.Input(
                    "learning_rate",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.000001,
                    round=False,
                    tooltip="Of the LoRA in the model. 0: as the preset says, 0.0001 for most.",
                ),
                io.Combo.Input(
                    "resume",
                    options=list(RESUME),
                    default=RESUME[0],
                    tooltip="auto: go on with the run of this name where there is one. never: begin anew. must: go on, "
                    "or stop with an error.",
                ),
            ],
            outputs=[
                _inputs.LoraModel.Output("LORA_MODEL", tooltip="The trained LoRA, for nodes that load one."),
                _inputs.FileName.Output(
                    "lora_name", display_name="lora_name", tooltip="Name of the file in the loras folder."
                ),
                io.Image.Output("loss_plot", display_name="loss_plot", tooltip="Loss, validation and learning rate."),
                io.Image.Output("samples", display_name="samples", tooltip="The last pictures that were drawn."),
                _inputs.report_output(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        try:
            if name is not None:
                _files.check_filename(name, "loras", "name")
        except LoomError as error:
            return error.message
        return True

    @classmethod
    def fingerprint_inputs(cls, name: str | None = None, **_: Any) -> str:
        """A LoRA that was deleted is made anew."""
        from ._train_config import lost

        return "" if name is None else lost(name)

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        dataset: Dataset,
        name: str,
        steps: int,
        rank: int,
        learning_rate: float,
        resume: str,
        settings: TrainSettings | None = None,
    ) -> io.NodeOutput:
        from ..lora_core.train.stops import Cancelled
        from . import _train_result
        from ._graph_base import base_of
        from ._train_config import Own
        from ._train_run import run
        from ._train_words import error_of_the_node

        base = base_of(cls.hidden.prompt, cls.hidden.unique_id)
        own = Own(name, steps, rank, learning_rate)
        try:
            # The host runs nodes without gradients; the engine switches them off itself where it wants none.
            with torch.inference_mode(False), torch.enable_grad():
                done = run(model, clip, vae, dataset, settings, own, resume, base, cls.hidden.unique_id)
        except Cancelled:  # before there was a run
            raise InterruptProcessingException from None
        except LoomError as error:
            raise error_of_the_node(error) from error
        if not done.result.finished:
            raise InterruptProcessingException
        path = done.result.path
        assert path is not None  # the run is finished
        # Its family is the model's; a file alone may not tell, least of all for a model of no known one.
        found = inspect_file(path, done.architecture)
        described = _train_result.described(found, done.result.report, done.folder, done.notes, done.warnings)
        report = json.dumps([described], ensure_ascii=False, indent=2)
        samples = _train_result.last_samples(done.folder)
        plot = [done.folder.plot] if done.folder.plot.exists() else []
        pictures = [_train_result.viewed(path) for path in (*plot, *samples)]
        return io.NodeOutput(
            lora_model(load_adapter(path, done.architecture), model),
            done.name,
            _train_result.batch(plot),
            _train_result.batch(samples),
            report,
            ui={"text": [f"{done.name}\n{report}"], "images": pictures},
        )
