"""Learning rates over a run."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from lora_core.train.config import OptimizerSection
from lora_core.train.network.group import Group
from lora_core.train.optimizers import build_optimizer, build_schedule, warmup_steps


def rates(steps: int, **settings) -> list[list[float]]:
    """[group][step]: rates of two groups, the second ten times the first."""
    section = OptimizerSection(learning_rate=1e-4, **settings)
    groups = [Group(str(rate), [nn.Parameter(torch.ones(1))], rate) for rate in (1e-4, 1e-3)]
    optimizer = build_optimizer(section, groups, torch.device("cpu"))
    schedule = build_schedule(section, optimizer, steps)
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return [list(column) for column in zip(*seen, strict=True)]


@pytest.mark.parametrize("name", get_args(OptimizerSection.model_fields["schedule"].annotation))
def test_all_groups_follow_one_curve_at_their_own_rate(name):
    first, second = rates(50, schedule=name)

    assert max(first) == pytest.approx(1e-4, rel=1e-6)
    assert second == pytest.approx([10 * rate for rate in first])


def test_constant_with_warmup_rises_and_stays():
    first, _ = rates(100, schedule="constant_with_warmup", warmup=4)

    assert first[:6] == pytest.approx([0, 0.25e-4, 0.5e-4, 0.75e-4, 1e-4, 1e-4])
    assert first[-1] == pytest.approx(1e-4)


def test_cosine_ends_near_nothing():
    first, _ = rates(100, schedule="cosine", warmup=0)

    assert first[50] == pytest.approx(0.5e-4)
    assert first[-1] < 1e-7


def test_cycles_and_power_are_used():
    first, _ = rates(100, schedule="cosine_with_restarts", warmup=0, cycles=2)
    assert first[50] == pytest.approx(1e-4)

    first, _ = rates(100, schedule="polynomial", warmup=0, power=2.0)
    # Down to 1e-7, transformers' own end.
    assert first[50] == pytest.approx(1e-7 + (1e-4 - 1e-7) / 4)


@pytest.mark.parametrize(("steps", "expected"), [(10_000, 100), (1000, 100), (500, 50), (9, 0), (1, 0)])
def test_warmup_is_a_tenth_of_the_run_at_the_most(steps, expected):
    assert warmup_steps(OptimizerSection(warmup=100), steps) == expected
