"""Full differences and norms by hand, and the shapes that are refused."""

from __future__ import annotations

import pytest
import torch

from deltas import Random, deltas
from lora_core.errors import ShapeMismatchError

SHAPES = {"weight": (2, 2), "bias": (2,)}


def test_weight_and_bias() -> None:
    roles = {"diff": torch.tensor([[1.0, 0.0], [0.0, -1.0]]), "diff_b": torch.tensor([4.0, 8.0])}
    made = deltas("full", roles, SHAPES)
    assert made["weight"].apply(torch.ones(2, 2), 0.5).tolist() == [[1.5, 1.0], [1.0, 0.5]]
    assert made["bias"].apply(torch.zeros(2), -0.25).tolist() == [-1.0, -2.0]
    assert (made["weight"].type, made["weight"].rank, made["weight"].tensor_names) == ("full", None, ("diff",))


def test_a_bias_alone() -> None:
    made = deltas("bias", {"diff_b": torch.tensor([4.0, 8.0])}, SHAPES)
    assert set(made) == {"bias"}


def test_norm() -> None:
    shapes = {"weight": (2,), "bias": (2,)}
    made = deltas("norm", {"w_norm": torch.tensor([0.5, 0.0]), "b_norm": torch.tensor([0.0, 1.0])}, shapes)
    assert made["weight"].apply(torch.ones(2), 2.0).tolist() == [2.0, 1.0]
    assert made["bias"].apply(torch.zeros(2), 2.0).tolist() == [0.0, 2.0]
    assert {delta.type for delta in made.values()} == {"norm"}


def test_the_parameter_of_a_block() -> None:
    """Wan's blocks hold ``modulation``, a parameter of no layer; files call its difference diff_m."""
    made = deltas("modulation", {"diff_m": torch.full((1, 6, 2), 0.5)}, {"modulation": (1, 6, 2)})
    assert made["modulation"].apply(torch.ones(1, 6, 2), 2.0).tolist() == torch.full((1, 6, 2), 2.0).tolist()
    with pytest.raises(ShapeMismatchError, match="diff_m: expected no modulation in this module"):
        deltas("modulation", {"diff_m": torch.zeros(1, 6, 2)}, SHAPES)


@pytest.mark.parametrize("stored", [(6, 4), (24,), (1, 6, 4)], ids=str)
def test_rows_of_a_difference_however_it_is_stored(stored: tuple[int, ...]) -> None:
    difference = Random.seeded().tensor(6, 4)
    delta = deltas("full", {"diff": difference.reshape(stored)}, {"weight": (6, 4)})["weight"]
    part = delta.rows(2, 3)
    assert part is not None
    assert torch.equal(part.apply(torch.zeros(3, 4), 1.0), difference[2:5])


def test_a_flattened_difference_gets_the_weights_shape() -> None:
    difference = Random.seeded().tensor(5, 4, 3, 3)
    made = deltas("full", {"diff": difference.flatten(1)}, {"weight": (5, 4, 3, 3)})
    assert torch.equal(made["weight"].apply(torch.zeros(5, 4, 3, 3), 1.0), difference)


@pytest.mark.parametrize(
    ("stored", "weight"),
    [
        ((5, 4, 3, 3), (5, 4, 3, 3)),
        ((180,), (5, 4, 3, 3)),
        ((5, 36), (5, 4, 3, 3)),
        ((5, 4, 1, 1), (5, 4)),
        ((5, 4), (5, 4, 1, 1)),
        ((1, 5, 4), (5, 4)),
        ((1, 5), (5,)),
        ((1,), ()),
    ],
)
def test_shapes_that_hold_the_numbers_in_the_weights_order(stored: tuple[int, ...], weight: tuple[int, ...]) -> None:
    difference = Random.seeded().tensor(*stored)
    made = deltas("full", {"diff": difference}, {"weight": weight})
    assert torch.equal(made["weight"].apply(torch.zeros(weight), 1.0), difference.reshape(weight))


@pytest.mark.parametrize(
    ("stored", "weight"),
    [((4, 5), (5, 4)), ((10, 2), (5, 4)), ((4, 5, 3, 3), (5, 4, 3, 3)), ((20, 9), (5, 4, 3, 3)), ((1, 4, 5), (5, 4))],
)
def test_as_many_numbers_in_another_order_are_refused(stored: tuple[int, ...], weight: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatchError, match="diff: expected"):
        deltas("full", {"diff": torch.zeros(stored)}, {"weight": weight})


@pytest.mark.parametrize(
    ("roles", "shapes", "message"),
    [
        ({"diff": (2, 3)}, SHAPES, r"diff: expected \(2, 2\), got \(2, 3\)"),
        ({"diff": (2, 2), "diff_b": (3,)}, SHAPES, r"diff_b: expected \(2,\), got \(3,\)"),
        ({"diff": (2, 2), "diff_b": (2,)}, {"weight": (2, 2)}, "diff_b: expected no bias in this module"),
    ],
)
def test_shapes_that_do_not_fit(
    roles: dict[str, tuple[int, ...]], shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ShapeMismatchError, match=message):
        deltas("full", {role: torch.zeros(shape) for role, shape in roles.items()}, shapes)
