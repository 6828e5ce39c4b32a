"""How timesteps are drawn."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from lora_core.train.config import ObjectiveSection
from lora_core.train.objective import TIMESTEPS, fractions

MANY = 4000


def drawn(**settings) -> torch.Tensor:
    return fractions(ObjectiveSection(**settings), seed=0, step=0, positions=range(MANY), total=MANY)


def test_the_table_has_every_way_that_settings_know():
    assert tuple(TIMESTEPS) == get_args(ObjectiveSection.model_fields["timesteps"].annotation)


@pytest.mark.parametrize("way", TIMESTEPS)
def test_every_way_stays_in_the_range_and_uses_it(way):
    values = drawn(timesteps=way, timestep_range=(0.25, 0.75))

    assert values.dtype == torch.float32
    assert 0.25 <= values.min() < 0.35
    assert 0.65 < values.max() <= 0.75


# Means of 4,000 draws have a standard error of at most 0.005; 0.02 is four of these.
@pytest.mark.parametrize(
    ("way", "settings", "mean"),
    [
        ("uniform", {}, 1 / 2),
        ("stratified", {}, 1 / 2),
        ("cubic", {}, 3 / 4),  # 1 - E[u^3] = 1 - 1/4
        ("mode", {}, 1 / 2),  # symmetric about the middle
        ("sigmoid", {}, 1 / 2),
        ("logit_normal", {"timestep_mean": 0.0}, 1 / 2),
        ("shift", {"shift": 1.0}, 1 / 2),
        ("shift", {"shift": 3.0}, 0.676),  # 3/2 - 3/4 ln 3, the integral of 3u / (1 + 2u)
    ],
)
def test_means_are_those_of_the_formulas(way, settings, mean):
    assert drawn(timesteps=way, **settings).mean().item() == pytest.approx(mean, abs=0.02)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-1.0, 0.5)])
def test_the_logit_of_logit_normal_is_normal(mean, std):
    values = drawn(timesteps="logit_normal", timestep_mean=mean, timestep_std=std)
    logits = torch.logit(values)

    # Standard errors: 1 / sqrt(4000) = 0.016 of a mean, 0.011 of a deviation.
    assert logits.mean().item() == pytest.approx(mean, abs=0.06)
    assert logits.std().item() == pytest.approx(std, abs=0.05)


def test_mode_is_more_often_in_the_middle_than_uniform():
    middle = lambda values: ((values > 0.4) & (values < 0.6)).float().mean().item()  # noqa: E731

    assert middle(drawn(timesteps="mode")) > 1.3 * middle(drawn(timesteps="uniform"))


@pytest.mark.parametrize("step", range(5))
def test_stratified_has_one_in_each_part_of_the_steps_batch_over_all_its_passes(step):
    section = ObjectiveSection(timesteps="stratified")
    passes = [fractions(section, seed=0, step=step, positions=[a, a + 1], total=8) for a in (0, 2, 4, 6)]

    assert sorted((torch.cat(passes) * 8).long().tolist()) == list(range(8))


def test_the_first_picture_of_a_step_is_not_always_in_the_same_part():
    section = ObjectiveSection(timesteps="stratified")
    parts = {int(fractions(section, seed=0, step=step, positions=[0], total=4).item() * 4) for step in range(40)}

    assert parts == {0, 1, 2, 3}


def test_a_passes_timesteps_do_not_depend_on_how_the_step_is_split():
    section = ObjectiveSection(timesteps="logit_normal")
    whole = fractions(section, seed=3, step=9, positions=[0, 1, 2, 3], total=4)
    halves = [fractions(section, seed=3, step=9, positions=half, total=4) for half in ([0, 1], [2, 3])]

    assert torch.equal(whole, torch.cat(halves))
    assert not torch.equal(whole, fractions(section, seed=3, step=10, positions=[0, 1, 2, 3], total=4))
