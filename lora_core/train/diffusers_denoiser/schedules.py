"""A pipeline's scheduler settings -> the noise of training, and the sampler for the same noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...errors import ConfigError
from ..config import ModelSection
from ..noise_schedule import DiscreteSchedule, FlowSchedule, NoiseSchedule, Prediction
from .flow_sampler import flow_sampler
from .libraries import library

# diffusers' names of what is predicted.
PREDICTIONS: Mapping[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "flow_prediction": "flow"}
_NAMES = {prediction: name for name, prediction in PREDICTIONS.items()}


def prediction_of(settings: Mapping[str, Any], model: ModelSection) -> Prediction:
    """What the model predicts: as told, or as the scheduler's settings say."""
    if model.prediction != "auto":
        return model.prediction
    if "FlowMatch" in settings.get("_class_name", ""):
        return "flow"
    name = settings.get("prediction_type")
    if name is None:
        fault = "the checkpoint does not say what it predicts; set v (768 px models of SD 2) or epsilon (512 px)"
        raise ConfigError("model.prediction", [fault])
    if name not in PREDICTIONS:
        fault = f"the scheduler says {name!r}, which cannot be trained; set it to epsilon, v or flow"
        raise ConfigError("model.prediction", [fault])
    return PREDICTIONS[name]


def sampler(settings: Mapping[str, Any], model: ModelSection) -> Any:
    """The scheduler that samples: DDIM without noise of its own, which knows all kinds of prediction but flow.

    Its timesteps end at the noisiest one ("trailing", Lin et al. 2024), which a schedule with zero terminal SNR needs
    and others do not mind.
    """
    prediction = prediction_of(settings, model)
    if prediction == "flow":
        return flow_sampler(float(settings.get("shift", 1.0)))
    rescaled = model.zero_terminal_snr or bool(settings.get("rescale_betas_zero_snr"))
    if rescaled and prediction == "epsilon":
        fault = "nothing can be learnt of pure noise by predicting it; set model.prediction to v, or switch it off"
        raise ConfigError("model.zero_terminal_snr", [fault])
    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "steps_offset")
    return library("diffusers").DDIMScheduler(
        **{name: settings[name] for name in names if settings.get(name) is not None},
        prediction_type=_NAMES[prediction],
        rescale_betas_zero_snr=rescaled,
        timestep_spacing="trailing",
        set_alpha_to_one=False,
        clip_sample=False,
    )


def noise_schedule(settings: Mapping[str, Any], model: ModelSection) -> NoiseSchedule:
    """The noise of training."""
    prediction = prediction_of(settings, model)
    if prediction == "flow":
        return FlowSchedule(shift=float(settings.get("shift", 1.0)))
    abar: torch.Tensor = sampler(settings, model).alphas_cumprod
    return DiscreteSchedule(abar.float(), prediction)
