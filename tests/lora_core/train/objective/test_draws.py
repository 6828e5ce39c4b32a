"""Everything random of a pass."""

from __future__ import annotations

import pytest
import torch

from host_waits import NoHostWaits
from lora_core.train.config import ObjectiveSection
from lora_core.train.noise_schedule import DiscreteSchedule, FlowSchedule
from lora_core.train.objective import Draw, draw

SCHEDULE = DiscreteSchedule(torch.linspace(0.999, 0.005, 1000), "v")
MEAN = torch.arange(4 * 4 * 16 * 16, dtype=torch.float32).view(4, 4, 16, 16) / 4096
STD = torch.full_like(MEAN, 0.5)
ALL = {"multires_noise": 4, "noise_offset": 0.1, "noise_offset_random": True, "input_perturbation": 0.1}


def drawn(settings: dict | None = None, rows=(0, 1, 2, 3), seed: int = 0, step: int = 5, **more) -> Draw:
    section = ObjectiveSection(**(settings or {}))
    rows = list(rows)
    return draw(section, SCHEDULE, MEAN[rows], STD[rows], seed=seed, step=step, positions=rows, total=4, **more)


def tensors(of: Draw) -> list[torch.Tensor]:
    return [of.latents, of.noise, of.timesteps, of.noisy, of.target]


@pytest.mark.parametrize("settings", [{}, ALL, {"timesteps": "stratified"}])
def test_a_split_into_passes_draws_the_same_bits(settings):
    whole = tensors(drawn(settings))
    halves = zip(tensors(drawn(settings, [0, 1])), tensors(drawn(settings, [2, 3])), strict=True)

    assert all(torch.equal(a, torch.cat(b)) for a, b in zip(whole, halves, strict=True))


@pytest.mark.parametrize("change", [{"seed": 1}, {"step": 6}])
def test_another_seed_or_step_draws_other_numbers(change):
    pairs = zip(tensors(drawn()), tensors(drawn(**change)), strict=True)

    assert not any(torch.equal(a, b) for a, b in pairs)


def test_noise_and_target_are_the_schedules():
    made = drawn()

    assert torch.equal(made.noisy, SCHEDULE.add_noise(made.latents, made.noise, made.timesteps))
    assert torch.equal(made.target, SCHEDULE.target(made.latents, made.noise, made.timesteps))


def test_latents_are_drawn_from_the_vaes_distribution_or_are_its_mean():
    eps = (drawn().latents - MEAN) / STD

    # 4,096 numbers: standard errors 0.016 of the mean and 0.011 of the deviation.
    assert eps.mean().item() == pytest.approx(0, abs=0.06)
    assert eps.std().item() == pytest.approx(1, abs=0.05)
    assert drawn(sample_latents=False).latents is not None
    assert torch.equal(drawn(sample_latents=False).latents, MEAN)
    without = draw(ObjectiveSection(), SCHEDULE, MEAN, None, seed=0, step=5, positions=range(4), total=4)
    assert torch.equal(without.latents, MEAN)
    assert torch.equal(without.noise, drawn().noise)


def test_noise_offset_is_one_number_a_channel():
    difference = drawn({"noise_offset": 0.1}).noise - drawn().noise

    flat = difference.flatten(2)
    # Noise up to 4 has roundings of 2e-7.
    torch.testing.assert_close(flat, flat[..., :1].expand_as(flat), rtol=0, atol=1e-6)
    assert len(flat[..., 0].unique()) == 16
    assert 0.03 < flat[..., 0].std().item() < 0.3


def test_a_random_noise_offset_is_between_none_and_all():
    whole = (drawn({"noise_offset": 0.1}).noise - drawn().noise).mean((2, 3))
    part = (drawn({"noise_offset": 0.1, "noise_offset_random": True}).noise - drawn().noise).mean((2, 3))
    share = part / whole

    # One share a picture; means of 256 numbers near 1e-1 with roundings of 1e-7.
    torch.testing.assert_close(share, share[:, :1].expand_as(share), rtol=1e-3, atol=1e-4)
    assert ((share > 0) & (share < 1)).all()


def test_multi_resolution_noise_has_deviation_one_and_more_of_low_frequencies():
    plain, pyramid = drawn().noise, drawn({"multires_noise": 6, "multires_discount": 0.8}).noise

    torch.testing.assert_close(pyramid.flatten(1).std(dim=1), torch.ones(4))
    assert pyramid.mean((2, 3)).std() > 3 * plain.mean((2, 3)).std()


def test_multi_resolution_noise_fits_any_size_and_frames():
    shape = (1, 2, 3, 5, 1)
    section = ObjectiveSection(multires_noise=10)

    made = draw(section, FlowSchedule(), torch.zeros(shape), None, seed=0, step=0, positions=[0], total=1)

    assert made.noise.shape == shape
    assert made.noise.isfinite().all()


def test_input_perturbation_changes_what_the_model_sees_and_not_the_target():
    plain, perturbed = drawn(), drawn({"input_perturbation": 0.1})

    assert torch.equal(plain.noise, perturbed.noise)
    assert torch.equal(plain.target, perturbed.target)
    rest = (1 - SCHEDULE.abar[plain.timesteps]).sqrt().view(-1, 1, 1, 1)
    extra = (perturbed.noisy - plain.noisy) / rest
    assert extra.std().item() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("schedule", [SCHEDULE, FlowSchedule(shift=3)])
def test_a_draw_does_not_wait_for_the_device(schedule):
    # Pictures' own random numbers are made on the CPU, where a look at a value costs nothing; what is looked at
    # there is the pyramid's factors alone.
    section = ObjectiveSection(noise_offset=0.1, input_perturbation=0.1, timesteps="logit_normal")

    with NoHostWaits():
        draw(section, schedule, MEAN, STD, seed=0, step=0, positions=range(4), total=4)
