"""One training in the host, from the node's inputs to the engine's result."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import folder_paths
from comfy import model_management

from ..lora_core.errors import MissingExtraError
from ..lora_core.train.config import TrainConfig
from ..lora_core.train.loop import Resume, TrainResult, train
from ..lora_core.train.output import RunFolder
from ..lora_core.train.pieces import open_data
from ._bridge import read_model
from ._host_denoiser import HostDenoiser
from ._host_models import unused_patches
from ._train_config import Own, compose, compute_dtype, with_prompts
from ._train_result import viewed
from ._train_types import Dataset, TrainSettings
from ._train_watcher import HostWatcher

# Pictures that are drawn on the way where nobody gave prompts.
PROMPTS = 2


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it.

    Args:
        result: the engine's.
        folder: of the run.
        name: of the LoRA in the host's list.
        architecture: of the model.
        notes, warnings: what was told on the way.
    """

    result: TrainResult
    folder: RunFolder
    name: str
    architecture: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def run(
    model: Any,
    clip: Any,
    vae: Any,
    dataset: Dataset,
    settings: TrainSettings | None,
    own: Own,
    resume: str,
    base: str,
    node: str | None,
) -> Done:
    """Train; MODEL, CLIP and VAE are left as they came.

    Args:
        model, clip, vae: of the graph.
        dataset, settings, own: what is wanted.
        resume: of the engine.
        base: of the metadata.
        node: id in the graph.

    Raises:
        as ``lora_core.train.loop.train``.
    """
    _check_installed()
    host = read_model(model, clip)
    assert host is not None  # a MODEL is connected
    config = compose(own, dataset, settings, host.architecture.name, model, clip)
    folder = RunFolder.of(config.output)
    name = os.path.relpath(folder.lora(), folder_paths.get_folder_paths("loras")[0])  # as the host's list has it
    watcher = HostWatcher(node, folder, name, viewed)
    model_management.unload_all_models()
    denoiser = HostDenoiser(
        model,
        clip,
        vae,
        text_encoders=config.text_encoder.train or bool(config.tokens.names),
        dtype=compute_dtype(config),
        checkpointing=config.run.checkpointing,
        base=base,
    )
    result: TrainResult | None = None
    # From the first word to the pages on there is a run that is going on, until they are told that it ended.
    try:
        if warning := unused_patches(model):
            watcher.warned(warning)
        config = with_prompts(config, partial(_captions, denoiser))
        result = train(config, watcher=watcher, resume=cast(Resume, resume), denoiser=denoiser)
    finally:
        denoiser.close()
        gc.collect()  # what was trained on goes before the next node wants its memory
        model_management.soft_empty_cache()
        watcher.send("ended", finished=bool(result and result.finished), step=result.steps if result else None)
    return Done(result, folder, name, host.architecture.name, tuple(watcher.notes), tuple(watcher.warnings))


def _captions(denoiser: HostDenoiser, config: TrainConfig) -> list[str]:
    """Of some pictures that are trained on, evenly apart."""
    data = open_data(config, denoiser.size_step, denoiser.latent_step)
    try:
        held_out = set(data.plan.held_out)
        trained = [one for index, one in enumerate(data.pictures) if index not in held_out and not one.prior]
        captions = list(dict.fromkeys(one.captions[0] for one in trained if one.captions and one.captions[0]))
        return captions[:: -(-len(captions) // PROMPTS) or 1]
    finally:
        data.close()


def _check_installed() -> None:
    """One line that names what is missing, before anything is loaded."""
    import importlib.util

    for package in ("peft", "accelerate", "matplotlib", "tomli_w"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package.replace("_", "-"), "train", "training a LoRA")
