"""Schedule-free optimizers train at one point and save another."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lora_core.train.config import OptimizerSection
from lora_core.train.network.group import Group
from lora_core.train.optimizers import averaged, build_optimizer, optimizer_mode


def trained(name: str, looks: bool = False) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight = nn.Parameter(torch.linspace(-1, 1, 50))
    section = OptimizerSection(name=name, learning_rate=1e-2)
    optimizer = build_optimizer(section, [Group("denoiser", [weight], 1e-2)], torch.device("cpu"))
    for step in range(10):
        weight.grad = weight.detach() + torch.randn(50, generator=torch.Generator().manual_seed(step))
        optimizer.step()
        if looks:
            with averaged(optimizer):
                pass
    return weight, optimizer


def test_the_average_is_elsewhere_in_the_block_and_the_weights_are_back_after_it():
    weight, optimizer = trained("schedulefree_adamw")
    before = weight.detach().clone()

    with averaged(optimizer):
        inside = weight.detach().clone()

    assert not torch.equal(inside, before)
    assert torch.equal(weight, before)


def test_the_average_is_what_eval_mode_has():
    weight, optimizer = trained("schedulefree_adamw")
    with averaged(optimizer):
        inside = weight.detach().clone()

    optimizer_mode(optimizer, "eval")

    assert torch.equal(weight, inside)
    optimizer_mode(optimizer, "train")


def test_a_run_that_is_looked_at_after_each_step_ends_at_the_same_bits():
    assert torch.equal(trained("schedulefree_adamw")[0], trained("schedulefree_adamw", looks=True)[0])


def test_after_an_error_in_the_block_it_trains_on_where_it_was():
    weight, optimizer = trained("schedulefree_adamw")
    before = weight.detach().clone()

    def fails() -> None:
        with averaged(optimizer):
            raise RuntimeError("while saving")

    with pytest.raises(RuntimeError, match="while saving"):
        fails()

    assert torch.equal(weight, before)
    assert all(group["train_mode"] for group in optimizer.param_groups)


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_other_optimizers_have_one_place(name):
    weight, optimizer = trained(name)
    before = weight.detach().clone()

    optimizer_mode(optimizer, "eval")
    with averaged(optimizer):
        assert torch.equal(weight, before)
    optimizer_mode(optimizer, "train")

    assert torch.equal(weight, before)
