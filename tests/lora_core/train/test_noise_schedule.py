"""Noise schedules against diffusers' schedulers."""

from __future__ import annotations

import pytest
import torch

from lora_core.train.noise_schedule import DiscreteSchedule, FlowSchedule

SHAPE = (6, 4, 8, 8)


def scheduler(**settings):
    from diffusers import DDPMScheduler

    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **settings)


@pytest.fixture
def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(SHAPE, generator=random) for _ in range(2))
    return latents, noise, torch.tensor([0, 1, 200, 500, 800, 999])


def test_noise_is_added_as_ddpm_does_to_the_last_bit(drawn):
    latents, noise, timesteps = drawn
    theirs = scheduler()

    ours = DiscreteSchedule(theirs.alphas_cumprod).add_noise(latents, noise, timesteps)

    assert torch.equal(ours, theirs.add_noise(latents, noise, timesteps))


def test_the_target_of_v_is_ddpms_velocity_to_the_last_bit(drawn):
    theirs = scheduler()

    ours = DiscreteSchedule(theirs.alphas_cumprod, "v").target(*drawn)

    assert torch.equal(ours, theirs.get_velocity(*drawn))


def test_the_target_of_epsilon_is_the_noise(drawn):
    assert DiscreteSchedule(scheduler().alphas_cumprod).target(*drawn) is drawn[1]


def test_snr_is_diffusers_compute_snr(drawn):
    from diffusers.training_utils import compute_snr

    theirs = scheduler()

    # They square the quotient of two roots, we divide: two more roundings of 6e-8 each, and the squaring doubles them.
    torch.testing.assert_close(
        DiscreteSchedule(theirs.alphas_cumprod).snr(drawn[2]), compute_snr(theirs, drawn[2]), rtol=1e-6, atol=0
    )


def test_fractions_cover_all_timesteps_and_no_more():
    schedule = DiscreteSchedule(scheduler().alphas_cumprod)

    timesteps = schedule.timesteps(torch.tensor([0.0, 0.0009, 0.2, 0.5, 0.9999, 1.0]))

    assert timesteps.tolist() == [0, 0, 200, 500, 999, 999]
    assert schedule.levels(timesteps).tolist() == pytest.approx([0, 0, 0.2, 0.5, 0.999, 0.999])


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_is_flow_match_eulers(shift, drawn):
    from diffusers import FlowMatchEulerDiscreteScheduler

    latents, noise, _ = drawn
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    timesteps = theirs.timesteps[[0, 10, 300, 600, 900, 999]]
    ours = FlowSchedule(shift=shift)

    # Their sigma is the shifted one itself, ours goes through the timestep and back: one rounding of 6e-8 more.
    torch.testing.assert_close(
        ours.add_noise(latents, noise, timesteps), theirs.scale_noise(latents, timesteps, noise), rtol=1e-5, atol=1e-6
    )
    fractions = torch.linspace(1, 1 / 1000, 1000)  # what they shift
    torch.testing.assert_close(ours.timesteps(fractions), theirs.timesteps, rtol=1e-5, atol=1e-3)


def test_the_target_of_flow_leads_from_the_noisy_to_the_picture(drawn):
    latents, noise, _ = drawn
    schedule = FlowSchedule()
    timesteps = torch.tensor([100.0, 250.0, 500.0, 750.0, 900.0, 1000.0])
    noisy, target = schedule.add_noise(latents, noise, timesteps), schedule.target(latents, noise, timesteps)

    # Sums of numbers up to 4: a rounding is 2e-7, and there are three.
    torch.testing.assert_close(noisy - (timesteps / 1000).view(-1, 1, 1, 1) * target, latents, rtol=0, atol=1e-6)


def test_snr_of_flow_is_one_half_way_and_zero_in_noise():
    schedule = FlowSchedule()

    assert schedule.snr(torch.tensor([500.0, 1000.0, 200.0])).tolist() == pytest.approx([1, 0, 16])
    assert schedule.snr(torch.tensor([0.0])).item() == float("inf")


def test_louder_noise_is_louder_in_the_picture_and_in_what_is_predicted():
    schedule = FlowSchedule(noise_scale=8.0)
    latents, noise, half = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0), torch.tensor([500.0])

    assert schedule.add_noise(latents, noise, half).item() == 0.5 * 1 + 0.5 * 8 * 2
    assert schedule.target(latents, noise, half).item() == 8 * 2 - 1
    assert schedule.snr(half).item() == pytest.approx(1 / 64)
