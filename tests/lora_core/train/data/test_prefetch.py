"""Results computed ahead in threads."""

from __future__ import annotations

from threading import Event

import pytest

from lora_core.train.data.prefetch import Prefetch


def test_what_was_asked_for_is_computed_ahead_and_handed_out_once():
    calls: list[int] = []
    began = Event()

    def square(number: int) -> int:
        calls.append(number)
        began.set()
        return number * number

    ahead: Prefetch[int, int] = Prefetch(square, 1)
    ahead.ask([3])
    ahead.ask([3])
    assert began.wait(30), "nobody has taken it yet"

    assert (ahead.take(3), calls) == (9, [3])
    assert (ahead.take(3), calls) == (9, [3, 3])
    ahead.close()


def test_without_threads_all_is_computed_when_it_is_taken():
    ahead: Prefetch[int, int] = Prefetch(lambda number: number + 1, 0)
    ahead.ask([1])

    assert ahead.take(1) == 2
    ahead.close()


def test_an_error_is_raised_where_the_result_is_taken():
    def broken(number: int) -> int:
        raise ValueError(f"no {number}")

    ahead: Prefetch[int, int] = Prefetch(broken, 2)
    ahead.ask([1])

    with pytest.raises(ValueError, match="no 1"):
        ahead.take(1)
    ahead.close()


def test_what_nobody_takes_is_dropped():
    """A run that asks for other steps than it takes does not fill the memory."""
    ahead: Prefetch[int, int] = Prefetch(lambda number: number, 2)

    for step in range(100):
        ahead.ask([2 * step, 2 * step + 1])

    assert len(ahead._pending) == 8
    assert ahead.take(0) == 0
    ahead.close()
