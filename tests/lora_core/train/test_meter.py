"""The numbers of steps: kept until they are looked at, then told together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from host_waits import NoHostWaits
from lora_core.train.config import RunSection
from lora_core.train.meter import Meter
from lora_core.train.pieces import Pieces
from lora_core.train.processes import Processes
from lora_core.train.stepping import Taken
from lora_core.train.stops import DivergedError, NotLearningError

NAN, INF = float("nan"), float("inf")
NAMES = ("a.png", "b.png")


def meter(processes: Any = None, **run: Any) -> Meter:
    """Of a run of 20 steps with two groups of parameters; a meter needs no more of the pieces."""
    section = RunSection(steps=20, device="cpu", **run)
    groups = [{"name": "denoiser", "lr": 1e-4}, {"name": "text_encoder", "lr": 1e-5}]
    pieces = SimpleNamespace(
        processes=processes or Processes(section),
        config=SimpleNamespace(run=section),
        optimizer=SimpleNamespace(param_groups=groups),
    )
    return Meter(cast(Pieces, pieces))


def taken(step: int, *losses: float, norm: float = 1.0) -> Taken:
    return Taken(step, torch.tensor(losses), torch.tensor(norm), NAMES)


def test_a_look_tells_of_all_steps_since_the_last():
    one = meter()
    one.add(taken(0, 1.0, 3.0, norm=2.0))
    one.add(taken(1, 0.0, 1.0, norm=4.0))
    assert one.pending

    progress = one.look(2)

    assert progress is not None
    assert (progress.step, progress.steps) == (2, 20)
    assert list(progress.losses) == [(1, 2.0), (2, 0.5)]
    assert progress.loss == one.loss == 1.25
    assert progress.rates == {"denoiser": 1e-4, "text_encoder": 1e-5}
    assert progress.extra == {"gradient": 3.0}
    assert progress.memory > 0
    assert progress.seconds_left == pytest.approx(18 / progress.steps_per_second)
    assert not one.pending
    assert one.look(2) is None, "there is nothing new"


def test_time_beside_the_steps_is_not_theirs(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr("lora_core.train.meter.time.perf_counter", lambda: clock[0])
    one = meter()

    def steps(count: int, seconds: float) -> float:
        for number in range(count):
            one.add(taken(number, 1.0, 1.0))
        clock[0] += seconds
        progress = one.look(count)
        assert progress is not None
        return progress.steps_per_second

    assert steps(10, 20.0) == 0.5  # with what libraries do first
    with one.paused():
        clock[0] += 100.0
    assert steps(10, 5.0) == 2.0  # the first look is forgotten
    # Then seven tenths of what was known stay: 0.7 * 2 + 0.3 * 4.
    assert steps(10, 2.5) == pytest.approx(2.6)
    assert (one.seconds, one.steps) == (27.5, 30)


@pytest.mark.parametrize("loss", [NAN, INF])
def test_a_loss_that_is_not_finite_names_step_and_picture(loss: float):
    one = meter()
    one.add(taken(6, 1.0, 1.0))
    one.add(taken(7, 1.0, loss))

    with pytest.raises(DivergedError) as caught:
        one.look(8)

    assert (caught.value.step, caught.value.pictures) == (8, ("b.png",))


def test_a_gradient_that_is_not_finite_names_all_pictures_of_the_step():
    one = meter()
    one.add(taken(6, 1.0, 1.0))
    one.add(taken(7, 1.0, 1.0, norm=INF))

    with pytest.raises(DivergedError, match=r"step 8: the gradient is inf for a\.png, b\.png"):
        one.look(8)


def test_in_fp16_some_gradients_overflow_and_the_scaler_leaves_their_steps_out():
    one = meter(stuck_after=3)
    one.pieces.processes.scaler = cast(Any, object())

    for step, norm in enumerate((INF, INF, 1.0, NAN, INF)):
        one.add(taken(step, 1.0, 1.0, norm=norm))
        assert one.look(step + 1) is not None


def test_in_fp16_gradients_that_never_stop_to_overflow_are_an_end():
    one = meter(stuck_after=3)
    one.pieces.processes.scaler = cast(Any, object())
    for step in range(3):
        one.add(taken(step, 1.0, 1.0, norm=INF))

    with pytest.raises(NotLearningError, match="every gradient overflows fp16 in 3 steps"):
        one.look(3)


class Three:
    """Three processes that all have the same numbers but for their size: 1, 10 and 100 times."""

    count, device, scaler = 3, torch.device("cpu"), None

    def gather(self, tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor * 10, tensor * 100])


def test_losses_of_several_processes_are_in_the_order_of_the_names():
    one = meter(Three())
    names = [f"{process}-{place}" for process in range(3) for place in range(2)]
    one.add(Taken(0, torch.tensor([1.0, 2.0]), torch.tensor(1.0), names))
    one.add(Taken(1, torch.tensor([3.0, NAN]), torch.tensor(1.0), names))

    with pytest.raises(DivergedError) as caught:
        one.look(2)

    assert (caught.value.step, caught.value.pictures) == (2, ("0-1", "1-1", "2-1"))

    one = meter(Three())
    one.add(Taken(0, torch.tensor([1.0, 2.0]), torch.tensor(1.0), names))
    one.add(Taken(1, torch.tensor([3.0, 4.0]), torch.tensor(1.0), names))
    progress = one.look(2)
    assert progress is not None
    assert list(progress.losses) == [(1, pytest.approx(3 * 111 / 6)), (2, pytest.approx(7 * 111 / 6))]


def test_nothing_is_read_before_a_look():
    one = meter()
    with NoHostWaits():
        one.add(taken(0, 1.0, 1.0))
