"""Weights of timesteps, against the formulas of diffusers' scripts and against each other."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from lora_core.train.config import ObjectiveSection
from lora_core.train.noise_schedule import DiscreteSchedule, FlowSchedule
from lora_core.train.objective.weightings import WEIGHTINGS, debiased, min_snr, soft_min_snr, weights_of

SNR = torch.tensor([0.0047, 0.3, 1.0, 4.9, 5.0, 5.1, 80.0, 1175.0])


def test_the_table_has_every_weighting_that_settings_know():
    assert ("none", *WEIGHTINGS) == get_args(ObjectiveSection.model_fields["weighting"].annotation)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_min_snr_is_that_of_diffusers_text_to_image_script(prediction):
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    timesteps = torch.arange(1000)
    snr = compute_snr(scheduler, timesteps)
    theirs = torch.stack([snr, 5.0 * torch.ones_like(timesteps)], dim=1).min(dim=1)[0]
    theirs = theirs / snr if prediction == "epsilon" else theirs / (snr + 1)
    section = ObjectiveSection(weighting="min_snr", gamma=5.0)

    ours = weights_of(section, DiscreteSchedule(scheduler.alphas_cumprod, prediction), timesteps)

    # Their snr is the square of a quotient of roots: a few roundings of 6e-8.
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_debiased_is_one_over_the_root_for_epsilon_and_another_for_v():
    torch.testing.assert_close(debiased(SNR, "epsilon", 0), 1 / SNR.sqrt())
    torch.testing.assert_close(debiased(SNR, "v", 0), 1 / (SNR + 1))
    sigma = 1 / (1 + SNR.sqrt())
    torch.testing.assert_close(debiased(SNR, "flow", 0), sigma.square())


@pytest.mark.parametrize("weighting", [min_snr, soft_min_snr])
def test_one_error_of_the_picture_costs_the_same_whatever_is_predicted(weighting):
    # x_t = a x + b n. An error of 1 in the picture is one of a / b in epsilon, of 1 / b in v; in flow, where
    # x_t = (1 - s) x + s n, one of 1 / s in the velocity, s = b / (a + b) for the same snr.
    a, b = (SNR / (SNR + 1)).sqrt(), (1 / (SNR + 1)).sqrt()
    errors = {"epsilon": a / b, "v": 1 / b, "flow": (a + b) / b}

    costs = [weighting(SNR, prediction, 5.0) * error.square() for prediction, error in errors.items()]

    torch.testing.assert_close(costs[0], costs[1])
    torch.testing.assert_close(costs[0], costs[2])
    if weighting is min_snr:
        torch.testing.assert_close(costs[0], SNR.clamp_max(5.0))


def test_soft_min_snr_is_half_of_min_snr_at_gamma_and_the_same_far_away():
    soft, hard = (w(torch.tensor([5.0, 1e6, 1e-6]), "v", 5.0) for w in (soft_min_snr, min_snr))

    torch.testing.assert_close(soft / hard, torch.tensor([0.5, 1.0, 1.0]))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("prediction", ["epsilon", "v", "flow"])
def test_weights_are_finite_at_both_ends(weighting, prediction):
    section = ObjectiveSection(weighting=weighting)
    if prediction == "flow":
        schedule, timesteps = FlowSchedule(), torch.tensor([0.0, 1e-3, 1000.0])
    else:
        schedule, timesteps = DiscreteSchedule(torch.tensor([1.0, 0.5, 0.0]), prediction), torch.arange(3)

    weights = weights_of(section, schedule, timesteps)

    assert weights.isfinite().all()
    assert (weights >= 0).all()
    assert weights[-1] > 0 or prediction != "epsilon"
