"""Parts that do not learn are found; those that may rest for good reasons are let be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from host_waits import NoHostWaits
from lora_core.train.learning import FIRST_LOOK, Learning, part_of
from lora_core.train.network.group import Group
from lora_core.train.stops import NotLearningError


def group(name: str, count: int = 2) -> Group:
    return Group(name, [nn.Parameter(torch.ones(3)) for _ in range(count)], 1e-3)


def step(learning: Learning, groups: list[Group], gradient: float = 1.0, rate: float = 0.1) -> None:
    """One step of gradient descent on the first parameter of each group; the others have no gradient."""
    for one in groups:
        one.parameters[0].grad = torch.full((3,), gradient)
    learning.watch(groups)
    for one in groups:
        with torch.no_grad():
            grad: Tensor = one.parameters[0].grad  # type: ignore[assignment]
            one.parameters[0].sub_(rate * grad)


def test_a_part_is_a_component_with_all_its_groups():
    assert [part_of(group(name)) for name in ("denoiser", "denoiser up", "text_encoder_2 up", "tokens")] == [
        *("denoiser", "denoiser", "text_encoder_2", "tokens")
    ]


def test_parts_that_learn_pass():
    """It is enough that one parameter of a part does: behind clip_skip some never have a gradient."""
    groups = [group("denoiser"), group("denoiser up"), group("tokens", 1)]
    learning = Learning(groups, stuck_after=3)

    for _ in range(2 * FIRST_LOOK):
        step(learning, groups)
        learning.check()
    learning.check(last=True)


def test_up_factors_alone_may_learn_at_first():
    """Half of an adapter's factors are 0 at the start, so the other half has no gradient yet."""
    groups = [group("denoiser"), group("denoiser up")]
    learning = Learning(groups, stuck_after=2)

    for _ in range(3):
        step(learning, groups[1:])
        learning.check()


def test_a_gradient_that_is_zero_in_every_step():
    groups = [group("denoiser"), group("text_encoder")]
    learning = Learning(groups, stuck_after=50)

    for _ in range(FIRST_LOOK):
        learning.check()
        step(learning, groups[:1])
        step(learning, groups[1:], gradient=0.0)
    with pytest.raises(NotLearningError) as caught:
        learning.check()

    assert (caught.value.part, caught.value.steps) == ("text_encoder", FIRST_LOOK)


def test_a_single_gradient_of_zero_is_chance():
    """With module dropout all of a small part may sit out."""
    groups = [group("denoiser")]
    learning = Learning(groups, stuck_after=50)

    for number in range(FIRST_LOOK):
        step(learning, groups, gradient=float(number == 3))
        learning.check()


def test_gradients_without_a_move():
    groups = [group("denoiser")]
    learning = Learning(groups, stuck_after=4)

    for _ in range(4):
        learning.check()
        step(learning, groups, rate=0.0)
    with pytest.raises(NotLearningError, match="denoiser: its parameters did not move in 4 steps"):
        learning.check()


def test_the_first_step_of_a_warm_up_does_not_move():
    groups = [group("denoiser")]
    learning = Learning(groups, stuck_after=1)

    for rate in (0.0, 0.1, 0.1):
        step(learning, groups, rate=rate)
        learning.check()


def test_a_short_run_is_looked_at_before_its_end():
    groups = [group("denoiser")]
    learning = Learning(groups, stuck_after=50)
    step(learning, groups, rate=0.0)
    step(learning, groups, rate=0.0)

    learning.check()
    with pytest.raises(NotLearningError, match="did not move in 2 steps"):
        learning.check(last=True)


def test_a_part_that_rests_is_not_asked():
    """Text encoders after their share of the run, embeddings after the first phase."""
    groups = [group("denoiser"), group("tokens")]
    learning = Learning(groups, stuck_after=2)

    for _ in range(FIRST_LOOK):
        step(learning, groups[:1])
        learning.check()
    learning.check(last=True)


def test_gradients_keep_their_bits():
    groups = [group("denoiser", 1)]
    groups[0].parameters[0].grad = torch.tensor([1e10, 1e-10, 0.1])

    Learning(groups, 5).watch(groups)

    assert torch.equal(groups[0].parameters[0].grad, torch.tensor([1e10, 1e-10, 0.1]))


def test_watching_does_not_wait_for_the_device():
    groups = [group("denoiser"), group("tokens")]
    learning = Learning(groups, stuck_after=5)

    with NoHostWaits():
        step(learning, groups)
        step(learning, groups)
