"""Schedule-free optimizers train at one point and save another."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lora_core.train.config import OptimizerSection
from lora_core.train.network.group import Group
from lora_core.train.optimizers import averaged, build_optimizer, optimizer_mode, stepping_alone


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


def test_the_average_of_a_part_that_rests_at_first_begins_when_it_is_trained():
    """As in pivotal tuning: the words alone, then the adapters."""
    begin = torch.linspace(-1, 1, 50)
    words, late, alone = (nn.Parameter(begin.clone()) for _ in range(3))
    section = OptimizerSection(name="schedulefree_adamw", learning_rate=1e-2)
    groups = [Group("tokens", [words], 1e-2), Group("denoiser", [late], 1e-2)]
    both = build_optimizer(section, groups, torch.device("cpu"))
    other = build_optimizer(section, [Group("denoiser", [alone], 1e-2)], torch.device("cpu"))

    for step in range(10):
        words.grad = words.detach().clone()
        if step >= 5:
            late.grad, alone.grad = late.detach() + step, alone.detach() + step
            other.step()
        with stepping_alone(both, ["tokens"] if step < 5 else ["denoiser"]):
            both.step()

    assert [group["name"] for group in both.param_groups] == ["tokens", "denoiser"]
    with averaged(both), averaged(other):
        assert not torch.equal(late, begin)
        assert torch.equal(late, alone)
