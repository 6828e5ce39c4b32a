"""The host's ``model_sampling`` as the engine's noise schedule.

What the host gives a model is, for every family that predicts noise, v or a flow, what the engine's formulas call the
noisy picture, and what the model gives back is what the engine compares with its target:

    epsilon, v    (x + sigma n) / sqrt(1 + sigma^2) = sqrt(abar) x + sqrt(1 - abar) n,    abar = 1 / (1 + sigma^2)
    flow          (1 - s) x + s n

So training asks the model itself: ``Plain`` takes the place of ``model_sampling`` and leaves input and output alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comfy import model_sampling
from torch import Tensor, nn

from ..lora_core.errors import ConfigError
from ..lora_core.train.noise_schedule import DiscreteSchedule, FlowSchedule, NoiseSchedule, Prediction

FLOW_UNITS = 1000.0
# The host's way of reading an output -> what it predicts. One that a later host does not have is left out.
_WAYS: tuple[tuple[str, Prediction], ...] = (
    ("EPS", "epsilon"),
    ("V_PREDICTION", "v"),
    ("CONST", "flow"),
    ("COSMOS_RFLOW", "flow"),
)


@dataclass(frozen=True, slots=True)
class HostSchedule:
    """A noise schedule, and the host's numbers for its timesteps.

    Args:
        schedule: for the engine.
        times: what the model is told of each timestep of a table, (steps,) float32; None for flows.
        sampling: the host's ``model_sampling``.
    """

    schedule: NoiseSchedule
    times: Tensor | None
    sampling: Any

    def told(self, timesteps: Tensor) -> Tensor:
        """What the model is told for the engine's timesteps, (b,) float32 on their device."""
        if self.times is not None:
            return self.times.to(timesteps.device)[timesteps]
        share = timesteps.float() / FLOW_UNITS
        return self.sampling.timestep(share).float() if _reads(self.sampling, "CONST") else share


class Plain(nn.Module):
    """In the place of a model's ``model_sampling``; everything else is asked of the one that was there."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.__dict__["original"] = original  # not as a module: it would be part of the model's weights

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["original"], name)

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return noise

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        return model_output

    def timestep(self, sigma: Tensor) -> Tensor:
        return sigma


def host_schedule(sampling: Any) -> HostSchedule:
    """The schedule of a MODEL, with the changes of the graph's sampling nodes.

    Raises:
        ConfigError: it is of a kind that has no such form.
    """
    prediction = prediction_of(sampling)
    if prediction == "flow":
        # Both of the host's flows are a shift of equal steps, a u / (1 + (a - 1) u); half of the way tells a.
        half = float(sampling.percent_to_sigma(0.5)) if _reads(sampling, "CONST") else 0.5
        scale = float(getattr(sampling, "noise_scale", 1.0))
        return HostSchedule(FlowSchedule(half / (1 - half), FLOW_UNITS, noise_scale=scale), None, sampling)
    sigmas = sampling.sigmas.detach().cpu().double().clone()
    times = sampling.timestep(sampling.sigmas).detach().cpu().float().clone()
    return HostSchedule(DiscreteSchedule((1 / (1 + sigmas.square())).float(), prediction), times, sampling)


def prediction_of(sampling: Any) -> Prediction:
    """What the model predicts; errors as ``host_schedule``."""
    found = next((prediction for name, prediction in _WAYS if _reads(sampling, name)), None)
    if found is None or (found != "flow" and float(getattr(sampling, "sigma_data", 1.0)) != 1.0):
        kinds = ", ".join(one.__name__ for one in type(sampling).__mro__[1:3])
        fault = f"its sampling is of the kind {kinds}, and only epsilon, v and flow models can be trained"
        raise ConfigError("MODEL", [f"{fault}: connect one of these, without nodes that change how it is sampled"])
    return found


def _reads(sampling: Any, name: str) -> bool:
    way = getattr(model_sampling, name, None)
    return way is not None and type(sampling).calculate_denoised is way.calculate_denoised
