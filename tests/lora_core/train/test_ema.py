"""The average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from host_waits import NoHostWaits
from lora_core.train.ema import Ema


def moved(parameters: list[nn.Parameter], ema: Ema, steps: range) -> None:
    for step in steps:
        with torch.no_grad():
            for parameter in parameters:
                parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
        ema.update()


def test_the_first_updates_forget_the_start():
    weight = nn.Parameter(torch.tensor([0.0]))
    ema = Ema([weight], 0.999)
    with torch.no_grad():
        weight.fill_(10.0)

    ema.update()  # decay 1/10
    with ema.swapped():
        assert weight.item() == pytest.approx(9.0)
    ema.update()  # decay 2/11: 10 - 1 * 2/11
    with ema.swapped():
        assert weight.item() == pytest.approx(10 - 2 / 11)


def test_the_decay_rises_no_higher_than_the_one_that_is_set():
    weight = nn.Parameter(torch.tensor([0.0]))
    ema = Ema([weight], 0.5)
    for _ in range(50):
        ema.update()
    with torch.no_grad():
        weight.fill_(8.0)

    ema.update()

    with ema.swapped():
        assert weight.item() == 4.0


def test_after_the_swap_the_weights_have_their_bits_even_after_an_error():
    parameters = [nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(2, 3))]
    ema = Ema(parameters, 0.9)
    moved(parameters, ema, range(3))
    before = [parameter.clone() for parameter in parameters]

    def fails() -> None:
        with ema.swapped():
            assert not torch.equal(parameters[0], before[0])
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        fails()

    assert all(torch.equal(a, b) for a, b in zip(parameters, before, strict=True))


def test_a_resumed_average_is_the_uninterrupted_one_to_the_last_bit():
    straight = [nn.Parameter(torch.ones(5))]
    whole = Ema(straight, 0.95)
    moved(straight, whole, range(6))

    first = [nn.Parameter(torch.ones(5))]
    half = Ema(first, 0.95)
    moved(first, half, range(3))
    state = half.state_dict()
    moved(first, half, range(9))  # what happens after the save is not in it
    second = [nn.Parameter(torch.ones(5))]
    moved(second, Ema(second, 0.5), range(3))
    resumed = Ema(second, 0.95)
    resumed.load_state_dict(state)
    moved(second, resumed, range(3, 6))

    with whole.swapped(), resumed.swapped():
        assert torch.equal(straight[0], second[0])


def test_an_average_of_other_parameters_is_refused():
    with pytest.raises(ValueError, match="does not fit 1 parameters"):
        Ema([nn.Parameter(torch.ones(5))], 0.9).load_state_dict(Ema([nn.Parameter(torch.ones(4))], 0.9).state_dict())


def test_an_update_does_not_wait_for_the_device():
    parameters = [nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(2, 3))]
    ema = Ema(parameters, 0.9)

    with NoHostWaits():
        ema.update()


def test_a_state_is_as_files_want_it_whatever_the_layout_of_the_parameters():
    value = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    ema = Ema([nn.Parameter(value)], 0.9)

    average = ema.state_dict()["average"]["0"]
    other = Ema([nn.Parameter(torch.zeros_like(value))], 0.9)
    other.load_state_dict(ema.state_dict())

    assert average.is_contiguous()
    assert torch.equal(other.state_dict()["average"]["0"], value)
