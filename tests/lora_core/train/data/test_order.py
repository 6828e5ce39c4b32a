"""The order of draws: endless, without remainders, the same for the same (seed, step)."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.train.data.order import Order

SQUARE, WIDE, TALL = (64, 64), (96, 48), (48, 96)


def drawn(order: Order, steps: range, count: int) -> list[int]:
    return [index for step in steps for index in order.draw(step, count)[1]]


def test_each_picture_is_seen_once_before_any_is_seen_again():
    order = Order(0, {SQUARE: range(12)}, {})

    first, second = drawn(order, range(3), 4), drawn(order, range(3, 6), 4)

    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second


def test_no_batch_is_partial_where_the_pictures_do_not_divide_by_it():
    """5 pictures in batches of 3: the stream goes over into the next permutation in the middle of a batch."""
    order = Order(0, {SQUARE: range(5)}, {})

    batches = [order.draw(step, 3)[1] for step in range(5)]

    assert {len(batch) for batch in batches} == {3}
    assert Counter(index for batch in batches for index in batch) == dict.fromkeys(range(5), 3)


def test_a_picture_counts_as_often_as_it_repeats():
    order = Order(0, {SQUARE: [0, 0, 0, 1]}, {})

    assert Counter(drawn(order, range(10), 2)) == {0: 15, 1: 5}


def test_a_batch_is_of_one_bucket_and_buckets_have_turns_in_proportion_to_their_pictures():
    buckets = {SQUARE: range(6), WIDE: range(6, 8), TALL: range(8, 12)}
    order = Order(0, buckets, {})

    cycle = [order.draw(step, 4) for step in range(6)]

    assert Counter(size for size, _ in cycle) == {SQUARE: 3, WIDE: 1, TALL: 2}
    assert all(set(indices) <= set(buckets[size]) for size, indices in cycle)
    assert Counter(index for _, indices in cycle for index in indices) == dict.fromkeys(range(12), 2)


def test_a_step_is_a_function_of_seed_and_step_alone():
    """Resume asks for step 41 without having asked for those before it."""
    buckets = {SQUARE: range(7), WIDE: range(7, 10)}
    whole = Order(3, buckets, {})
    steps = [whole.draw(step, 4) for step in range(60)]

    assert Order(3, buckets, {}).draw(41, 4) == steps[41]
    assert [whole.draw(step, 4) for step in (59, 0, 41)] == [steps[59], steps[0], steps[41]]
    assert [Order(4, buckets, {}).draw(step, 4) for step in range(60)] != steps


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_second_draw_is_a_picture_of_the_class(count: int):
    order = Order(0, {SQUARE: range(4)}, {SQUARE: range(10, 13)})

    indices = drawn(order, range(24), count)

    assert [index >= 10 for index in indices] == [False, True] * (12 * count)
    assert Counter(index for index in indices if index < 10) == dict.fromkeys(range(4), 3 * count)
    assert Counter(index for index in indices if index >= 10) == dict.fromkeys(range(10, 13), 4 * count)


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    count=st.integers(1, 5),
    seed=st.integers(0, 2**40),
)
def test_after_as_many_steps_as_pictures_all_were_seen_equally_often(counts: list[int], count: int, seed: int):
    starts = [sum(counts[:place]) for place in range(len(counts))]
    buckets = {(8 * place + 8, 8): range(start, start + counts[place]) for place, start in enumerate(starts)}
    total = sum(counts)

    seen = Counter(drawn(Order(seed, buckets, {}), range(total), count))

    assert seen == dict.fromkeys(range(total), count)
