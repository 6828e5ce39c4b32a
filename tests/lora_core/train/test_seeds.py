"""Random numbers that follow from what they are for."""

from __future__ import annotations

import torch

from lora_core.train import seeds
from lora_core.train.seeds import fraction, generator, number


def test_a_number_follows_from_seed_and_purpose_alone():
    first = [number(7, "crop", step, 0) for step in range(3)]
    torch.manual_seed(123)
    torch.rand(5)

    assert [number(7, "crop", step, 0) for step in range(3)] == first


def test_numbers_are_the_same_in_every_version():
    # Written down: a run that is resumed after an update must go on with its own numbers.
    assert number(0, "crop", 1, 2) == 4345571890644744058


def test_seed_purpose_step_and_position_all_count():
    drawn = {number(0, "crop", 1, 2), number(1, "crop", 1, 2), number(0, "flip", 1, 2), number(0, "crop", 2, 2)}

    assert len(drawn | {number(0, "crop", 1, 3), number(0, "crop", 12)}) == 6


def test_a_generator_draws_the_same_each_time():
    one, again = (torch.randn(4, generator=generator(3, "noise", 5)) for _ in range(2))

    assert torch.equal(one, again)


def test_fractions_are_spread_over_the_whole_of_zero_to_one():
    drawn = [fraction(0, "timestep", step) for step in range(4000)]

    # Standard error of the mean is 0.29 / sqrt(4000) = 0.005.
    assert abs(sum(drawn) / len(drawn) - 0.5) < 0.02
    assert all(0 <= value < 1 for value in drawn)
    assert min(drawn) < 0.005
    assert max(drawn) > 0.995


def test_the_largest_number_is_still_less_than_one(monkeypatch):
    monkeypatch.setattr(seeds, "number", lambda *_: 2**63 - 1)

    assert fraction(0) < 1
