"""The parts of a pipeline from a single-file checkpoint, under any of the names that the merger reads.

The weights come from the file, what it does not say from ``configs`` or from a pipeline's folder: settings and
tokenizers. Which tensor is which module of diffusers is the architecture's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...architectures import ARCHITECTURES, Architecture
from ...errors import ConfigError, ShapeMismatchError
from ...io import TensorFile
from ...io.pickled import is_pickle
from ...merge import vae_names
from ...merge.quantised_weights import without_quantisation
from ...merge.single_file import open_file
from ...merge.source import Checkpoint
from ...types import DENOISER, TEXT_ENCODER, ModuleKey, Target
from .configs import Configs, configs_for
from .libraries import library
from .parts import Parts, TextEncoder
from .vocabulary import tokenizer_for

# Empty tensors by which checkpoints of SDXL say what they predict.
_V_PREDICTION, _ZERO_SNR = "v_pred", "ztsnr"
# What the header's modelspec.prediction_type says, in diffusers' words.
_SAID = {"epsilon": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}

# A parameter's name in diffusers -> the tensor, None where the file has none.
Find = Callable[[str], "Tensor | None"]


def load_file(path: Path, pipeline: Path | None, dtype: torch.dtype, architecture: Architecture | None) -> Parts:
    """Load a whole checkpoint of SD 1, SD 2 or SDXL.

    Args:
        path: safetensors.
        pipeline: folder with configurations or tokenizers, in the place of those that are known.
        dtype: of UNet and text encoders; the VAE is float32.
        architecture: of a file that is of no known family.

    Raises:
        ConfigError: a part is missing, or something that the file does not say.
        CorruptFileError, UnknownCheckpointError: as ``open_checkpoint``.
    """
    refuse_pickle(path, "model.base")
    checkpoint = without_quantisation(open_file(path, [architecture] if architecture else ARCHITECTURES))
    configs = configs_for(checkpoint.architecture, pipeline, path.name)
    _check_whole(checkpoint, configs)
    diffusers, transformers = library("diffusers"), library("transformers")
    encoders: list[TextEncoder] = []
    for component, settings in configs.encoders.items():
        name = "CLIPTextModel" if component == TEXT_ENCODER else "CLIPTextModelWithProjection"
        config = transformers.CLIPTextConfig(**settings)
        model = filled(getattr(transformers, name), config, _find(checkpoint, component), dtype, path.name)
        encoders.append(TextEncoder(component, model, tokenizer_for(component, configs, pipeline, path.name)))
    return Parts(
        path.name,
        filled(diffusers.UNet2DConditionModel.from_config, configs.unet, _find(checkpoint, DENOISER), dtype, path.name),
        filled(
            diffusers.AutoencoderKL.from_config,
            configs.vae,
            find_vae(checkpoint.tensors, checkpoint.load),
            torch.float32,
            path.name,
        ),
        encoders,
        _scheduler(checkpoint, configs),
    )


def load_vae_file(path: Path, like: Any) -> Any:
    """A VAE of its own file with the settings of another one.

    Raises:
        ConfigError, ShapeMismatchError: it is no VAE, or one of another family.
    """
    refuse_pickle(path, "model.vae")
    file = TensorFile(path)
    make = library("diffusers").AutoencoderKL.from_config
    return filled(make, dict(like.config), find_vae(file, lambda key: file[key].load()), torch.float32, path.name)


def refuse_pickle(path: Path, setting: str) -> None:
    with path.open("rb") as handle:
        if is_pickle(handle.read(16)):
            fault = (
                f"{path.name} is a pickle, which may run code; convert it to safetensors, or give a pipeline's folder"
            )
            raise ConfigError(setting, [fault])


def filled(make: Callable[[Any], Any], config: Any, find: Find, dtype: torch.dtype, label: str) -> Any:
    """A frozen model of these settings, with the file's tensors as its parameters; memory for one copy only.

    Raises:
        ConfigError: the file lacks a parameter.
        ShapeMismatchError: one has another shape.
    """
    with library("accelerate").init_empty_weights(include_buffers=False):
        model = make(config)
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensor = find(name)
        if tensor is None:
            raise ConfigError(label, [f"has no tensor for {name} of {type(model).__name__}; give a whole checkpoint"])
        if tensor.shape != parameter.shape:
            # A VAE's projections are 1x1 convolutions in checkpoints.
            if tensor.shape != (*parameter.shape, 1, 1):
                hint = "Its settings are of another model; check model.pipeline."
                raise ShapeMismatchError(label, name, tuple(parameter.shape), tuple(tensor.shape), hint)
            tensor = tensor.reshape(parameter.shape)
        state[name] = tensor.to(dtype, copy=True).contiguous()
    model.load_state_dict(state, strict=False, assign=True)
    return model.eval().requires_grad_(False)


def find_vae(keys: Mapping[str, Any], load: Callable[[str], Tensor]) -> Find:
    """Finds a VAE's tensors under a checkpoint's names or diffusers', with or without a prefix."""
    bare: dict[str, str] = {}
    for key in keys:
        short = key
        for prefix in vae_names.PREFIXES:
            short = short.removeprefix(prefix)
        bare[short] = key
    # Levels of the decoder, which both count, from opposite ends.
    levels = 1 + max((int(key.split(".")[2]) for key in bare if key.startswith("decoder.up.")), default=-1)

    def find(name: str) -> Tensor | None:
        key = bare.get(name) or bare.get(vae_names.checkpoint_name(name, levels))
        return None if key is None else load(key)

    return find


def _find(checkpoint: Checkpoint, name: str) -> Find:
    """Finds the tensors of a UNet or a text encoder."""
    component = checkpoint.architecture.component(name)

    def find(key: str) -> Tensor | None:
        path, _, parameter = key.rpartition(".")
        location = component.diffusers.get(path) if component else None
        place = checkpoint.places.get(Target(ModuleKey(name, location.path), parameter)) if location else None
        if place is None:
            return None
        tensor = checkpoint.load(place.key)
        if place.slice is not None:
            tensor = tensor.narrow(*place.slice)
        return tensor.T if place.transposed else tensor

    return find


def _check_whole(checkpoint: Checkpoint, configs: Configs) -> None:
    parts = checkpoint.components
    missing = [name for name in (DENOISER, *configs.encoders) if name not in parts]
    if not any(key.startswith(vae_names.PREFIXES) for key in checkpoint.tensors):
        missing.append("vae")
    if missing:
        fault = f"{checkpoint.label} has no {', '.join(missing)}; give a whole checkpoint or a pipeline's folder"
        raise ConfigError("model.base", [fault])


def _scheduler(checkpoint: Checkpoint, configs: Configs) -> Mapping[str, Any]:
    """The scheduler's settings with what the file says of them; without ``prediction_type`` where nothing does."""
    settings = dict(configs.scheduler)
    said = _SAID.get(checkpoint.metadata.get("modelspec.prediction_type", ""))
    if _V_PREDICTION in checkpoint.tensors:
        said = "v_prediction"
    if said:
        settings["prediction_type"] = said
    if _ZERO_SNR in checkpoint.tensors:
        settings["rescale_betas_zero_snr"] = True
    return settings
