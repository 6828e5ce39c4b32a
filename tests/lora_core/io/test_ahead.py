"""Jobs in threads, results in order."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from lora_core.io.ahead import MAX_THREADS, Ahead


def test_results_come_in_the_order_of_the_jobs() -> None:
    def job(number: int) -> int:
        time.sleep(0.01 * (3 - number % 3))
        return number

    with Ahead([lambda number=number: job(number) for number in range(12)]) as results:
        assert list(results) == list(range(12))


def test_each_thread_uses_one_core_and_others_what_they_did() -> None:
    before = torch.get_num_threads()
    with Ahead([torch.get_num_threads] * 8) as results:
        assert set(results) == {1}
        assert torch.get_num_threads() == before


def test_jobs_start_a_few_ahead_only() -> None:
    started: list[int] = []
    with Ahead([lambda number=number: started.append(number) for number in range(100)]) as results:
        for done in range(50):
            next(results)
            assert len(started) <= done + 1 + MAX_THREADS + 1


def test_an_error_comes_out_in_its_turn_and_ends_the_rest() -> None:
    def fail() -> int:
        raise ZeroDivisionError

    ran: list[int] = []
    jobs = [lambda: 1, fail, *[lambda: ran.append(1)] * 100]
    with pytest.raises(ZeroDivisionError), Ahead(jobs) as results:
        list(results)
    assert len(ran) < 100
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("loom-ahead", "loom-hash"))]


def test_no_jobs_no_results() -> None:
    with Ahead[int]([]) as results:
        assert list(results) == []
