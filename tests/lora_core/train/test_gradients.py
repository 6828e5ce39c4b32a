"""Clipping, and lengths of gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from host_waits import NoHostWaits
from lora_core.train.gradients import clip, finite, norms


def parameters_with(*gradients: list[float]) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return made


def test_all_gradients_together_are_cut_to_the_norm():
    parameters = parameters_with([3.0, 0.0], [4.0])

    before = clip(parameters, 1.0)

    assert before.item() == 5
    # torch divides by the length plus 1e-6.
    assert parameters[0].grad.tolist() == pytest.approx([0.6, 0], rel=1e-6)
    assert parameters[1].grad.tolist() == pytest.approx([0.8], rel=1e-6)


@pytest.mark.parametrize("norm", [0, 5.1])
def test_gradients_within_the_norm_keep_their_bits(norm):
    parameters = parameters_with([3.0, 0.1], [4.0 / 3])

    clip(parameters, norm)

    assert torch.equal(parameters[0].grad, torch.tensor([3.0, 0.1]))
    assert torch.equal(parameters[1].grad, torch.tensor([4.0 / 3]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_told(bad):
    assert not finite(clip(parameters_with([1.0], [bad]), 1.0))
    assert finite(clip(parameters_with([1.0], [2.0]), 1.0))


def test_each_part_has_its_own_length_and_resting_parts_have_none():
    resting = nn.Parameter(torch.zeros(2))

    assert norms([parameters_with([3.0], [4.0]), [resting], parameters_with([0.0])]).tolist() == [5, 0, 0]


def test_nothing_waits_for_the_device():
    parameters = parameters_with([3.0], [4.0])

    with NoHostWaits():
        finite(clip(parameters, 1.0))
        norms([parameters])


@pytest.mark.parametrize("look", [torch.Tensor.item, bool, lambda x: x[x > 0], lambda x: torch.equal(x, x)])
def test_a_look_at_a_value_is_caught(look):
    with pytest.raises(AssertionError, match="waits for the device"), NoHostWaits():
        look(torch.ones(()))
