"""How often several processes ask each other whether to stop."""

from __future__ import annotations

import pytest

from lora_core.train.run import PATIENCE, asking_every


@pytest.mark.parametrize("speed", [0.01, 0.15, 0.5, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("log_every", [1, 10, 1000])
def test_an_interrupt_is_heard_before_the_launcher_kills(speed: float, log_every: int):
    every = asking_every(speed, log_every)

    assert 1 <= every <= log_every
    assert every == 1 or every / speed <= PATIENCE


def test_fast_steps_do_not_wait_for_each_other_more_often_than_they_look_at_the_loss():
    assert asking_every(100.0, 10) == 10
