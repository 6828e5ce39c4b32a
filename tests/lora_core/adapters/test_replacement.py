"""New values: the strength is the way from the base to the stored value."""

from __future__ import annotations

import pytest
import torch

from deltas import Random, delta_of, deltas
from lora_core.errors import ShapeMismatchError

NEW = {"set_weight": torch.tensor([3.0, 5.0])}


@pytest.mark.parametrize(
    ("strength", "expected"), [(1.0, [3.0, 5.0]), (0.5, [2.0, 3.5]), (-1.0, [-1.0, -1.0]), (0.0, [1.0, 2.0])]
)
def test_by_hand(strength: float, expected: list[float]) -> None:
    delta = delta_of("replacement", NEW, (2,))
    assert delta.apply(torch.tensor([1.0, 2.0]), strength).tolist() == expected
    assert delta.tensor_names == ("set_weight",)


def test_strength_one_is_exactly_the_new_value() -> None:
    random = Random.seeded()
    weight, value = random.tensor(50), random.tensor(50, size=100.0)
    assert torch.equal(delta_of("replacement", {"set_weight": value}, (50,)).apply(weight, 1.0), value)


def test_a_norm_whose_weight_is_called_scale() -> None:
    """Flux's checkpoints: files say weight, the parameter is scale. Differences go there too."""
    assert set(deltas("replacement", NEW, {"scale": (2,)})) == {"scale"}
    assert set(deltas("full", {"diff": torch.ones(2)}, {"scale": (2,)})) == {"scale"}
    assert set(deltas("norm", {"w_norm": torch.ones(2)}, {"scale": (2,)})) == {"scale"}


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeMismatchError, match=r"set_weight: expected \(3,\), got \(2,\)"):
        delta_of("replacement", NEW, (3,))
