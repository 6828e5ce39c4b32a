"""A scheduler's settings -> what is predicted, how noise is added, and the sampler for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lora_core.errors import ConfigError
from lora_core.train.config import ModelSection
from lora_core.train.diffusers_denoiser.libraries import library
from lora_core.train.diffusers_denoiser.schedules import noise_schedule, sampler
from lora_core.train.noise_schedule import DiscreteSchedule

SD = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "skip_prk_steps": True,
    "prediction_type": "epsilon",
}


def section(**settings: Any) -> ModelSection:
    return ModelSection.model_validate({"base": "base", **settings})


@pytest.mark.parametrize(
    ("settings", "told", "expected"),
    [
        (SD, "auto", "epsilon"),
        (SD | {"prediction_type": "v_prediction"}, "auto", "v"),
        (SD, "v", "v"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "auto", "flow"),
        (SD, "flow", "flow"),
    ],
)
def test_what_is_predicted(settings: dict[str, Any], told: str, expected: str):
    assert noise_schedule(settings, section(prediction=told)).prediction == expected


def test_noise_is_the_schedulers():
    scheduler = library("diffusers").DDPMScheduler.from_config(SD)

    schedule = noise_schedule(SD, section())

    assert isinstance(schedule, DiscreteSchedule)
    assert torch.equal(schedule.abar, scheduler.alphas_cumprod)


@pytest.mark.parametrize("by", ["settings", "section"])
def test_a_schedule_may_end_in_pure_noise(by: str):
    settings = SD | {"prediction_type": "v_prediction"} | ({"rescale_betas_zero_snr": True} if by == "settings" else {})

    schedule = noise_schedule(settings, section(zero_terminal_snr=by == "section"))

    assert isinstance(schedule, DiscreteSchedule)
    assert schedule.abar[-1] == 0
    # The beginning stays: Lin et al. 2024, algorithm 1.
    assert schedule.abar[0].item() == pytest.approx(1 - 0.00085, rel=1e-5)


def test_noise_cannot_be_predicted_from_pure_noise():
    with pytest.raises(ConfigError, match=r"model\.zero_terminal_snr: .*set model\.prediction to v"):
        noise_schedule(SD, section(zero_terminal_snr=True))


def test_the_shift_of_a_flow_is_the_schedulers():
    settings = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    half = torch.tensor([0.5])

    schedule = noise_schedule(settings, section())

    # 3 * 0.5 / (1 + 2 * 0.5)
    assert schedule.timesteps(half).item() == pytest.approx(750)
    assert sampler(settings, section()).config.shift == 3.0


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_the_sampler_begins_at_the_noisiest_step(steps: int):
    made = sampler(SD, section())
    made.set_timesteps(steps)

    assert made.timesteps[0] == 999
    assert len(made.timesteps) == steps
