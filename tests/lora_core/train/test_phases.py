"""Which parts train at a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lora_core.train.config import TrainConfig
from lora_core.train.network import Group
from lora_core.train.phases import set_phase, trains

DENOISER = {"denoiser", "denoiser up"}
ADAPTERS = DENOISER | {"text_encoder", "text_encoder_2 up"}
ALL = ADAPTERS | {"tokens"}


def settings(tokens: dict[str, Any] | None = None, *, until: float = 1.0) -> TrainConfig:
    """A run of 100 steps."""
    return TrainConfig.model_validate(
        {
            "model": {"base": "base"},
            "data": {"folder": "pictures"},
            "run": {"steps": 100},
            "text_encoder": {"train": True, "until": until},
            "tokens": tokens or {},
        }
    )


def training(config: TrainConfig, step: int) -> set[str]:
    return {group for group in ALL if trains(group, config, step)}


def test_pivotal_tuning_trains_the_words_first_and_then_the_adapter():
    config = settings({"names": ("<s1>",), "steps": 30})

    assert training(config, 0) == training(config, 29) == {"tokens"}
    assert training(config, 30) == training(config, 99) == ADAPTERS


def test_words_can_go_on_beside_the_adapter():
    config = settings({"names": ("<s1>",), "steps": 30, "keep_training": True})

    assert training(config, 29) == {"tokens"}
    assert training(config, 30) == training(config, 99) == ALL


def test_without_steps_of_their_own_words_train_with_the_adapter():
    assert training(settings({"names": ("<s1>",)}), 0) == training(settings({"names": ("<s1>",)}), 99) == ALL


def test_first_steps_of_words_that_there_are_none_of_are_not_waited_for():
    assert trains("denoiser", settings({"steps": 30}), 0)


@pytest.mark.parametrize(
    ("tokens", "last"),
    [({}, 24), ({"names": ("<s1>",), "steps": 20}, 39)],  # a quarter of 100; 20, and a quarter of the other 80
)
def test_text_encoders_stay_after_their_share_of_the_steps(tokens: dict[str, Any], last: int):
    config = settings(tokens, until=0.25)

    assert training(config, last) - {"tokens"} == ADAPTERS
    assert training(config, last + 1) - {"tokens"} == DENOISER


def test_what_rests_gets_no_gradient_and_an_optimizer_leaves_it_alone():
    groups = [Group(name, [nn.Parameter(torch.ones(2)) for _ in range(2)], 0.1) for name in ("denoiser", "tokens")]
    config = settings({"names": ("<s1>",), "steps": 1})
    # Its averages go on after the gradient is gone, where a parameter has one of zero.
    optimizer = torch.optim.AdamW([p for group in groups for p in group.parameters], lr=0.1)

    def step(number: int) -> dict[str, bool]:
        active = set_phase(groups, config, number)
        before = {group.name: group.parameters[0].detach().clone() for group in groups}
        for group in groups:
            assert all(parameter.requires_grad == (group in active) for parameter in group.parameters)
        sum(parameter.square().sum() for group in active for parameter in group.parameters).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {group.name: not torch.equal(group.parameters[0], before[group.name]) for group in groups}

    assert step(0) == {"denoiser": False, "tokens": True}
    assert step(1) == {"denoiser": True, "tokens": False}
    assert step(0) == {"denoiser": False, "tokens": True}  # as after a resume: a function of the step
