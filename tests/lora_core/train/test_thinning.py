from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from lora_core.train.thinning import thinned

values = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(values, max_size=300), st.integers(4, 40))
def test_few_points_are_left_and_none_is_new(losses: list[float], most: int):
    curve = list(enumerate(losses, start=1))

    left = thinned(curve, most)

    assert len(left) <= most
    assert left == sorted(set(left))
    assert set(left) <= set(curve)
    assert left[:1] == curve[:1]
    assert left[-1:] == curve[-1:]


@given(st.lists(values, min_size=1, max_size=300), st.integers(4, 40))
def test_the_highest_and_the_lowest_stay(losses: list[float], most: int):
    left = [loss for _, loss in thinned(list(enumerate(losses)), most)]

    assert (min(left), max(left)) == (min(losses), max(losses))


def test_a_spike_in_a_long_curve_stays_where_it_was():
    curve = [(step, math.sin(step / 500)) for step in range(50_000)]
    curve[31_313] = (31_313, 9.0)

    assert (31_313, 9.0) in thinned(curve, 2000)
