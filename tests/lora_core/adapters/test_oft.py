"""Diag-OFT and BOFT by hand, their rows, and the shapes that are refused."""

from __future__ import annotations

import math

import pytest
import torch

from deltas import Random, delta_of
from lora_core.errors import ShapeMismatchError

# X - X^T = [[0, -1], [1, 0]], whose Cayley transform is the quarter turn [[0, -1], [1, 0]].
QUARTER = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
STILL = torch.zeros(2, 2)


def test_diag_oft_multiplies_each_block_by_the_transposed_rotation() -> None:
    delta = delta_of("diag-oft", {"oft_blocks": torch.stack([QUARTER, STILL])}, (4, 1))
    weight = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    assert delta.apply(weight, 1.0).flatten().tolist() == [2.0, -1.0, 3.0, 4.0]
    assert delta.apply(weight, 0.5).flatten().tolist() == [1.5, 0.5, 3.0, 4.0]
    assert delta.apply(weight, -1.0).flatten().tolist() == [0.0, 5.0, 3.0, 4.0]
    assert (delta.type, delta.rank, delta.scale, delta.factors()) == ("diag-oft", None, 1.0, None)


def test_boft_pairs_rows_that_are_half_a_group_apart() -> None:
    """Blocks of 2 in 4 rows: stage 0 turns (0, 1) and (2, 3), stage 1 turns (0, 2) and (1, 3)."""
    weight = torch.tensor([[1.0], [2.0], [3.0], [4.0]])

    def turned(stages: list[list[torch.Tensor]]) -> list[float]:
        blocks = torch.stack([torch.stack(stage) for stage in stages])
        delta = delta_of("boft", {"oft_blocks": blocks}, (4, 1))
        assert delta.type == "boft"
        return delta.apply(weight, 1.0).flatten().tolist()

    assert turned([[QUARTER, STILL]]) == [-2.0, 1.0, 3.0, 4.0]
    assert turned([[STILL, STILL], [QUARTER, STILL]]) == [-3.0, 2.0, 1.0, 4.0]
    assert turned([[STILL, STILL], [STILL, QUARTER]]) == [1.0, -4.0, 3.0, 2.0]


def test_blocks_of_four_dimensions_are_boft_under_the_same_names() -> None:
    blocks = torch.zeros(2, 2, 2, 2)
    assert delta_of("diag-oft", {"oft_blocks": blocks}, (4, 3)).type == "boft"


@pytest.mark.parametrize("blocks", [(1, 2, 2), (1, 1, 2, 2)])
def test_alpha_is_the_limit_of_the_norm_for_each_output(blocks: tuple[int, ...]) -> None:
    """X - X^T has norm sqrt(2); with 2 outputs an alpha of sqrt(2) / 4 halves it: (I + Q/2)(I - Q/2)^-1 by hand."""
    roles = {"oft_blocks": QUARTER.reshape(blocks)}
    delta = delta_of("diag-oft", roles, (2, 2), alpha=math.sqrt(2) / 4)
    half = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    expected = half if len(blocks) == 4 else half.T
    torch.testing.assert_close(delta.apply(torch.eye(2), 1.0), expected)  # float32 tolerances: a norm and a solution


@pytest.mark.parametrize("alpha", [None, 0.0, 10.0])
def test_no_constraint_or_a_wide_one_changes_nothing(alpha: float | None) -> None:
    delta = delta_of("diag-oft", {"oft_blocks": QUARTER[None]}, (2, 2), alpha=alpha)
    assert delta.apply(torch.eye(2), 1.0).tolist() == [[0.0, 1.0], [-1.0, 0.0]]


def test_rescale_multiplies_the_rotated_rows() -> None:
    roles = {"oft_blocks": QUARTER[None], "rescale": torch.tensor([[3.0], [5.0]])}
    delta = delta_of("diag-oft", roles, (2, 1))
    assert delta.apply(torch.tensor([[1.0], [2.0]]), 1.0).flatten().tolist() == [6.0, -5.0]
    assert delta.tensor_names == ("oft_blocks", "rescale")


@pytest.mark.parametrize("blocks", [(6, 4, 4), (2, 6, 4, 4)])
@pytest.mark.parametrize("strength", [0.0, 1.0, 0.4])
def test_strength(blocks: tuple[int, ...], strength: float) -> None:
    """0 is the base to the bit and a new tensor, 1 keeps the norms of columns, between is the straight way."""
    random = Random.seeded()
    delta = delta_of("diag-oft", {"oft_blocks": random.tensor(*blocks, size=0.3)}, (24, 5, 3, 3))
    weight = random.tensor(24, 5, 3, 3)
    whole, result = delta.apply(weight, 1.0), delta.apply(weight, strength)
    assert result.data_ptr() != weight.data_ptr()
    if strength == 0:
        assert torch.equal(result, weight)
    torch.testing.assert_close(result, weight + strength * (whole - weight))
    torch.testing.assert_close(whole.norm(dim=0), weight.norm(dim=0))
    assert (whole - weight).abs().max() > 0.1


@pytest.mark.parametrize(
    ("blocks", "start", "length"),
    [((6, 4, 4), 8, 12), ((6, 4, 4), 0, 24), ((2, 6, 4, 4), 8, 16), ((1, 6, 4, 4), 4, 8)],
)
def test_rows_on_borders_are_the_rows_of_the_whole(blocks: tuple[int, ...], start: int, length: int) -> None:
    """With the constraint of all blocks, whichever rows are asked for."""
    random = Random.seeded()
    roles = {"oft_blocks": random.tensor(*blocks), "rescale": random.tensor(24, 1)}
    delta, weight = delta_of("diag-oft", roles, (24, 5), alpha=0.05), random.tensor(24, 5)
    part = delta.rows(start, length)
    assert part is not None
    assert (part.tensor_names, part.type) == (delta.tensor_names, delta.type)
    whole = delta.apply(weight, 0.7).narrow(0, start, length)
    torch.testing.assert_close(part.apply(weight.narrow(0, start, length), 0.7), whole)
    inner = part.rows(0, length)
    assert inner is not None
    torch.testing.assert_close(inner.apply(weight.narrow(0, start, length), 0.7), whole)


@pytest.mark.parametrize(
    ("blocks", "start", "length"),
    [((6, 4, 4), 2, 4), ((6, 4, 4), 4, 6), ((2, 6, 4, 4), 4, 8), ((2, 6, 4, 4), 0, 12)],
)
def test_rows_inside_of_what_is_mixed_do_not_change_apart(blocks: tuple[int, ...], start: int, length: int) -> None:
    delta = delta_of("diag-oft", {"oft_blocks": torch.zeros(blocks)}, (24, 5))
    assert delta.rows(start, length) is None


@pytest.mark.parametrize(
    ("roles", "weight", "message"),
    [
        ({"oft_blocks": (6, 4, 4)}, (20, 5), r"oft_blocks: expected \(blocks, size, size\), blocks \* size = 20"),
        ({"oft_blocks": (6, 4, 3)}, (24, 5), "oft_blocks"),
        ({"oft_blocks": (24,)}, (24, 5), "oft_blocks"),
        ({"oft_blocks": (0, 4, 4)}, (), "oft_blocks"),
        ({"oft_blocks": (6, 4, 4), "rescale": (24,)}, (24, 5), r"rescale: expected \(24, 1\), got \(24,\)"),
        ({"oft_blocks": (6, 4, 4), "rescale": (24, 1)}, (24, 5, 3, 3), r"rescale: expected \(24, 1, 1, 1\)"),
        ({"oft_blocks": (2, 6, 4, 4)}, (20, 5), r"\(stages, blocks, size, size\), blocks \* size = 20"),
        ({"oft_blocks": (2, 8, 3, 3)}, (24, 5), "an even size"),
        ({"oft_blocks": (4, 6, 4, 4)}, (24, 5), "at most as many stages as halve 24 outputs"),
        ({"oft_blocks": (2, 6, 4, 4), "rescale": (20, 1)}, (24, 5), "rescale"),
    ],
)
def test_shapes_that_do_not_fit(roles: dict[str, tuple[int, ...]], weight: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeMismatchError, match=message):
        delta_of("diag-oft", {role: torch.zeros(shape) for role, shape in roles.items()}, weight)
