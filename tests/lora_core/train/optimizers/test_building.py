"""Every optimizer by its name: it moves what it should, at the rates that are set, and goes on after a save."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from host_waits import NoHostWaits
from lora_core.errors import ConfigError, MissingExtraError
from lora_core.train.config import OptimizerSection
from lora_core.train.network.group import Group
from lora_core.train.optimizers import OPTIMIZERS, build_optimizer, build_schedule, flatten_state, load_optimizer

CPU = torch.device("cpu")
# Factors of a small LoRA, of a convolution, and a vector; the first is large enough for an 8-bit state.
SHAPES = ((16, 320), (64, 16), (8, 4, 3, 3), (5,))


class Run:
    """A few parameters with gradients that follow from the step."""

    def __init__(self, name: str, **settings) -> None:
        steps = settings.pop("steps", 40)
        rate = 1.0 if name == "prodigy" else 1e-3
        random = torch.Generator().manual_seed(0)
        self.parameters = [nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]
        # As run.channels_last has it. Files have no layout, and fused kernels trust that all have the same.
        self.parameters[2].data = self.parameters[2].data.contiguous(memory_format=torch.channels_last)
        section = OptimizerSection(name=name, learning_rate=rate, warmup=3, schedule="cosine", **settings)
        groups = [Group("denoiser", self.parameters[:2], rate), Group("text_encoder", self.parameters[2:], rate)]
        self.optimizer = build_optimizer(section, groups, CPU)
        self.schedule = build_schedule(section, self.optimizer, steps)

    def go(self, steps: range) -> None:
        for step in steps:
            random = torch.Generator().manual_seed(step)
            for parameter in self.parameters:
                # Around a minimum at 0.
                parameter.grad = parameter.detach() + 0.3 * torch.randn(parameter.shape, generator=random)
            self.optimizer.step()
            self.schedule.step()

    def values(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]


def test_the_table_has_every_optimizer_that_settings_know():
    assert set(OPTIMIZERS.names) == set(get_args(OptimizerSection.model_fields["name"].annotation))


@pytest.mark.parametrize("name", OPTIMIZERS.names)
def test_it_moves_every_parameter_towards_the_minimum(name: str):
    run = Run(name)
    before = run.values()

    run.go(range(20))

    for start, end in zip(before, run.values(), strict=True):
        assert end.isfinite().all()
        assert end.norm() < start.norm()


@pytest.mark.parametrize("name", OPTIMIZERS.names)
def test_a_save_in_the_middle_and_what_follows_are_the_uninterrupted_run_to_the_last_bit(name: str):
    straight = Run(name)
    straight.go(range(12))

    first = Run(name)
    first.go(range(6))
    tensors, told = flatten_state(first.optimizer.state_dict())
    saved = {key: tensor.clone() for key, tensor in tensors.items()}
    text, rates = json.dumps(told), json.dumps(first.schedule.state_dict())
    weights = first.values()
    first.go(range(6, 9))  # after the save: must not reach what was saved

    second = Run(name)
    with torch.no_grad():
        for parameter, value in zip(second.parameters, weights, strict=True):
            parameter.copy_(value)
    load_optimizer(second.optimizer, saved, json.loads(text))
    second.schedule.load_state_dict(json.loads(rates))
    second.go(range(6, 12))

    assert all(torch.equal(a, b) for a, b in zip(straight.values(), second.values(), strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS.names)
def test_parameters_without_gradient_stay_and_state_for_them_can_begin_after_a_resume(name: str):
    """Pivotal tuning: a part rests first, and starts after the state was saved."""

    def run(interrupted: bool) -> list[torch.Tensor]:
        made = Run(name)
        late = made.parameters[2:]
        start = [parameter.detach().clone() for parameter in late]
        for step in range(8):
            if step == 4 and interrupted:
                weights, tree = made.values(), flatten_state(made.optimizer.state_dict())
                rates = made.schedule.state_dict()
                made = Run(name)
                with torch.no_grad():
                    for parameter, value in zip(made.parameters, weights, strict=True):
                        parameter.copy_(value)
                load_optimizer(made.optimizer, *tree)
                made.schedule.load_state_dict(rates)
            random = torch.Generator().manual_seed(step)
            for place, parameter in enumerate(made.parameters):
                gradient = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=random))
                parameter.grad = None if place >= 2 and step < 4 else gradient
            made.optimizer.step()
            made.schedule.step()
            if step == 3:
                assert all(torch.equal(a, b) for a, b in zip(start, made.parameters[2:], strict=True))
        return made.values()

    assert all(torch.equal(a, b) for a, b in zip(run(False), run(True), strict=True))


def test_adamw_is_torchs_with_the_settings_as_they_are():
    ours = Run("adamw", betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, options={"amsgrad": True})
    theirs = Run("adamw")
    theirs.optimizer = torch.optim.AdamW(
        theirs.parameters, lr=1e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, amsgrad=True, fused=False
    )
    theirs.schedule = build_schedule(
        OptimizerSection(learning_rate=1e-3, warmup=3, schedule="cosine"), theirs.optimizer, 40
    )

    ours.go(range(10))
    theirs.go(range(10))

    assert all(group["fused"] for group in ours.optimizer.param_groups)
    for a, b in zip(ours.values(), theirs.values(), strict=True):
        # One kernel and many round in another order: values up to 4, ten steps.
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_eight_bits_are_eight_bits():
    run = Run("adamw8bit")
    run.go(range(1))

    assert run.optimizer.state[run.parameters[0]]["state1"].dtype == torch.uint8


def test_each_group_has_its_rate_and_its_name():
    section = OptimizerSection(learning_rate=1e-4)
    parts = [
        Group("denoiser", [nn.Parameter(torch.ones(2))], 1e-4),
        Group("denoiser up", [nn.Parameter(torch.ones(2))], 1.6e-3),
    ]

    groups = build_optimizer(section, parts, CPU).param_groups

    assert [(group["name"], group["lr"]) for group in groups] == [("denoiser", 1e-4), ("denoiser up", 1.6e-3)]


@pytest.mark.parametrize(
    ("name", "betas"), [("lion", (0.9, 0.99)), ("came", (0.9, 0.999, 0.9999)), ("adamw", (0.9, 0.999))]
)
def test_betas_that_are_left_out_are_the_optimizers_own(name, betas):
    assert Run(name).optimizer.param_groups[0]["betas"] == betas


@pytest.mark.parametrize("name", [row.name for row in OPTIMIZERS if row.library.module != "torch.optim"])
def test_a_library_that_is_not_installed_is_named_with_what_to_do(name, monkeypatch):
    package = OPTIMIZERS.get(name).library.module.split(".")[0]
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails

    with pytest.raises(
        MissingExtraError, match=rf'optimizer.name = "{name}" needs the package .*pip install'
    ) as caught:
        Run(name)

    assert caught.value.extra == OPTIMIZERS.get(name).library.extra


@pytest.mark.parametrize("row", OPTIMIZERS, ids=lambda row: row.name)
def test_what_is_named_for_installing_is_in_the_project_file(row):
    # As text: Python 3.10 has no reader of TOML.
    text = (Path(__file__).parents[4] / "pyproject.toml").read_text("utf-8")
    extra = re.search(rf"^{row.library.extra} = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)

    assert extra is not None
    assert row.library.package == "torch" or f'"{row.library.package}>=' in extra[1]


def test_all_wrong_settings_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        Run("came", betas=(0.9, 0.99), options={"ams_bond": True, "lr": 1.0, "nonsense": 3})

    assert len(caught.value.faults) == 4
    text = str(caught.value)
    assert "options.ams_bond: came has no such option; did you mean options.ams_bound?" in text
    assert "options.lr is set by learning_rate" in text
    assert "options.nonsense: came has no such option; known: " in text
    assert "betas: came takes 3, got 2" in text


def test_sgd_has_no_betas_but_momentum():
    with pytest.raises(ConfigError, match="sgd has none; leave them out"):
        Run("sgd", betas=(0.9, 0.99))
    assert Run("sgd", options={"momentum": 0.9}).optimizer.param_groups[0]["momentum"] == 0.9


def test_prodigy_with_two_rates_is_refused_as_it_would_use_the_first_for_all():
    parts = [
        Group("denoiser", [nn.Parameter(torch.ones(2))], 1.0),
        Group("text_encoder", [nn.Parameter(torch.ones(2))], 1e-5),
    ]

    with pytest.raises(ConfigError, match=r"one learning rate for all .* denoiser 1, text_encoder 1e-05"):
        build_optimizer(OptimizerSection(name="prodigy", learning_rate=1.0), parts, CPU)


def test_prodigy_finds_its_rate():
    run = Run("prodigy", steps=400)
    start = run.values()

    run.go(range(200))

    # From 1e-6, which alone could move nothing by more than 2e-4 in 200 steps.
    assert run.optimizer.param_groups[0]["d"] > 1e-4
    assert run.parameters[0].norm() < 0.9 * start[0].norm()


# Prodigy reads its estimate on the host in every step, and so does what is measured by it.
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS.names if name != "prodigy"])
def test_a_step_does_not_wait_for_the_device(name: str):
    run = Run(name)
    run.go(range(2))

    with NoHostWaits():
        run.optimizer.step()
