"""Hard stops: what each says, and that it comes when it should."""

from __future__ import annotations

import pytest
import torch

from lora_core.errors import LoomError
from lora_core.train.stops import (
    DivergedError,
    NotLearningError,
    ResumeError,
    TrainingStoppedError,
    check_gradients,
    check_losses,
    check_moved,
    spill,
)

NAN, INF = float("nan"), float("inf")


def test_a_loss_that_is_not_finite_names_the_pictures_and_the_step():
    error = DivergedError(12, ["a.png", "b.png", "c.png", "d.png", "e.png"], INF)

    assert (error.step, error.pictures, error.loss) == (12, ("a.png", "b.png", "c.png", "d.png", "e.png"), INF)
    assert str(error).startswith("step 12: the loss is inf for a.png, b.png, c.png and 2 more. ")
    assert "Nothing was saved since the last good step" in str(error)
    assert "Lower the learning rate" in str(error)


def test_a_part_that_does_not_learn_is_named():
    error = NotLearningError("text_encoder", 50, "its parameters did not move")

    assert (error.part, error.steps, error.why) == ("text_encoder", 50, "its parameters did not move")
    assert str(error).startswith("text_encoder: its parameters did not move in 50 steps, so nothing would be learned.")
    assert "in 1 step, " in str(NotLearningError("denoiser", 1, "its gradient is exactly zero"))


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (DivergedError(1, ["a.png"], NAN), ArithmeticError),
        (NotLearningError("denoiser", 1, "why"), RuntimeError),
        (ResumeError("state: damaged"), ValueError),
    ],
)
def test_one_handler_catches_all_stops(error: Exception, also: type[Exception]):
    assert isinstance(error, TrainingStoppedError)
    assert isinstance(error, LoomError)
    assert isinstance(error, also)
    assert "\n" not in str(error)


def test_finite_losses_pass():
    check_losses([5, 6], torch.tensor([[0.5, 1e30], [0.0, 2.0]]), [["a", "b"], ["c", "d"]])
    check_losses([], torch.empty(0, 2), [])


def test_the_first_step_with_a_loss_that_is_not_finite_is_the_one_that_is_told():
    losses = torch.tensor([[0.1, 0.2, 0.3], [0.1, INF, NAN], [NAN, NAN, NAN]])
    names = [["a", "b", "c"], ["d", "e", "f"], ["g", "h", "i"]]

    with pytest.raises(DivergedError) as raised:
        check_losses([40, 41, 42], losses, names)

    assert (raised.value.step, raised.value.pictures, raised.value.loss) == (41, ("e", "f"), INF)


def test_a_gradient_of_exactly_zero_is_a_stop():
    check_gradients({"denoiser": 1e-30, "text_encoder": 2.0}, 3)

    with pytest.raises(NotLearningError, match=r"^text_encoder: its gradient is exactly zero in 3 steps") as raised:
        check_gradients({"denoiser": 1.0, "text_encoder": 0.0}, 3)
    assert (raised.value.part, raised.value.steps) == ("text_encoder", 3)


def test_one_number_that_moved_is_enough():
    before = [torch.zeros(3), torch.ones(2, 2)]
    now = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.ones(2, 2))]

    with pytest.raises(NotLearningError, match=r"^denoiser: its parameters did not move in 50 steps"):
        check_moved("denoiser", before, now, 50)
    with torch.no_grad():
        now[1][1, 1] += torch.finfo(torch.float32).eps
    check_moved("denoiser", before, now, 50)


def test_memory_beyond_the_gpus_own_is_told():
    gib = 2**30

    assert spill(8 * gib, 8 * gib) == ""
    assert spill(int(9.5 * gib), 8 * gib).startswith("the run holds 9.5 GiB, the GPU has 8.0: ")
    assert "Lower the batch" in spill(9 * gib, 8 * gib)
