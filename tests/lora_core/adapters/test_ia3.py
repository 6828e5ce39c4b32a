"""IA3 by hand, which side it is on, and the shapes that are refused."""

from __future__ import annotations

import pytest
import torch

from deltas import delta_of, deltas
from lora_core.errors import ShapeMismatchError

WEIGHT = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def test_lycoris_stores_the_number_less_one() -> None:
    roles = {"ia3_weight": torch.tensor([0.5, -1.0]), "on_input": torch.tensor(0)}
    delta = delta_of("ia3", roles, (2, 3))
    assert (delta.type, delta.rank, delta.scale, delta.tensor_names) == ("ia3", None, 1.0, ("ia3_weight",))
    assert delta.apply(WEIGHT, 1.0).tolist() == [[1.5, 3.0, 4.5], [0.0, 0.0, 0.0]]
    assert delta.apply(WEIGHT, -2.0).tolist() == [[0.0, 0.0, 0.0], [12.0, 15.0, 18.0]]


def test_lycoris_on_input() -> None:
    roles = {"ia3_weight": torch.tensor([0.0, 1.0, 2.0]), "on_input": torch.tensor(1)}
    assert delta_of("ia3", roles, (2, 3)).apply(WEIGHT, 0.5).tolist() == [[1.0, 3.0, 6.0], [4.0, 7.5, 12.0]]


@pytest.mark.parametrize(("flag", "expected"), [(1, [[2.0, 1.0], [2.0, 1.0]]), (0, [[2.0, 2.0], [1.0, 1.0]])])
def test_of_a_square_weight_the_flag_says_the_side(flag: int, expected: list[list[float]]) -> None:
    roles = {"ia3_weight": torch.tensor([1.0, 0.0]), "on_input": torch.tensor(flag)}
    assert delta_of("ia3", roles, (2, 2)).apply(torch.ones(2, 2), 1.0).tolist() == expected


def test_peft_stores_the_number_itself() -> None:
    delta = delta_of("ia3_peft", {"ia3_l": torch.tensor([[3.0], [1.0]])}, (2, 3))
    assert delta.apply(WEIGHT, 0.5).tolist() == [[2.0, 4.0, 6.0], [4.0, 5.0, 6.0]]


@pytest.mark.parametrize(
    ("shape", "expected"), [((1, 2), [[3.0, 1.0], [3.0, 1.0]]), ((2, 1), [[3.0, 3.0], [1.0, 1.0]])]
)
def test_of_a_square_weight_pefts_shape_says_the_side(shape: tuple[int, int], expected: list[list[float]]) -> None:
    delta = delta_of("ia3_peft", {"ia3_l": torch.tensor([3.0, 1.0]).reshape(shape)}, (2, 2))
    assert delta.apply(torch.ones(2, 2), 1.0).tolist() == expected


def test_peft_scales_what_leaves_the_layer_so_the_bias_too() -> None:
    shapes = {"weight": (2, 3), "bias": (2,)}
    made = deltas("ia3_peft", {"ia3_l": torch.tensor([[3.0], [1.0]])}, shapes)
    assert made["bias"].apply(torch.tensor([1.0, 2.0]), 1.0).tolist() == [3.0, 2.0]
    assert set(deltas("ia3_peft", {"ia3_l": torch.ones(1, 3)}, shapes)) == {"weight"}
    assert set(deltas("ia3", {"ia3_weight": torch.ones(2)}, shapes)) == {"weight"}


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize(("kind", "role"), [("ia3", "ia3_weight"), ("ia3_peft", "ia3_l")])
def test_shapes_that_do_not_fit(kind: str, role: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatchError, match=rf"{role}: expected \(2,\) or \(3,\)"):
        delta_of(kind, {role: torch.zeros(shape)}, (2, 3))


def test_a_norm_has_no_sides() -> None:
    with pytest.raises(ShapeMismatchError, match="ia3_weight: expected"):
        delta_of("ia3", {"ia3_weight": torch.zeros(2)}, (2,))
