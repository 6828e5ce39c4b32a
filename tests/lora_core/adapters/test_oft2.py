"""OneTrainer's OFT 2 against its forward pass, written out with dense matrices.

Tolerances are ``assert_close``'s for float32 (1.3e-6 relative, 1e-5 absolute): sums in another order.
"""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from deltas import Random, delta_of
from lora_core.errors import ShapeMismatchError

MARK = "oft_R.scaled_oft"


def dense_rotation(vectors: torch.Tensor, size: int, inputs: int) -> torch.Tensor:
    """R of all inputs as one matrix: the series that OneTrainer's ``_cayley_batch`` sums, numbers row after row."""
    made: list[torch.Tensor] = []
    for vector in vectors:
        skewed = torch.zeros(size, size)
        numbers = iter(vector.tolist())
        for row in range(size):
            for column in range(row + 1, size):
                skewed[row, column] = number = next(numbers)
                skewed[column, row] = -number
        power = torch.linalg.matrix_power
        made.append(torch.eye(size) + 2 * skewed + 2 * power(skewed, 2) + 2 * power(skewed, 3) + power(skewed, 4))
    return torch.block_diag(*(made * (inputs // size) if len(made) == 1 else made))


@pytest.mark.parametrize("scaled", [False, True], ids=["", "scaled"])
@pytest.mark.parametrize("blocks", [5, 1], ids=["", "shared"])
def test_linear(blocks: int, scaled: bool) -> None:
    """OneTrainer rotates what goes in: ``y = (x R) W^T``."""
    random = Random.seeded()
    vectors, weight, inputs = random.tensor(blocks, 6, size=0.2), random.tensor(12, 20), random.tensor(3, 20)
    rotation = dense_rotation(vectors / (2 * sqrt(3)) if scaled else vectors, 4, 20)
    roles = {"oft_R": vectors} | ({MARK: torch.tensor(True)} if scaled else {})
    delta = delta_of("oft2", roles, (12, 20))
    torch.testing.assert_close(inputs @ delta.apply(weight, 1.0).T, (inputs @ rotation) @ weight.T)
    torch.testing.assert_close(delta.apply(weight, 0.4), weight + 0.4 * (weight @ rotation.T - weight))
    assert torch.equal(delta.apply(weight, 0.0), weight)
    assert (delta.type, delta.rank, delta.tensor_names) == ("oft2", None, tuple(roles))


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_is_turned_the_other_way_round(kernel: int) -> None:
    """OneTrainer multiplies the flattened weight itself: ``W R``."""
    random = Random.seeded()
    width = 4 * kernel * kernel
    vectors, weight = random.tensor(width // 4, 6, size=0.2), random.tensor(12, 4, kernel, kernel)
    expected = (weight.flatten(1) @ dense_rotation(vectors, 4, width)).reshape(weight.shape)
    torch.testing.assert_close(delta_of("oft2", {"oft_R": vectors}, tuple(weight.shape)).apply(weight, 1.0), expected)


def test_a_mark_that_is_false_scales_nothing() -> None:
    random = Random.seeded()
    vectors, weight = random.tensor(5, 6, size=0.2), random.tensor(12, 20)
    plain = delta_of("oft2", {"oft_R": vectors}, (12, 20)).apply(weight, 1.0)
    marked = delta_of("oft2", {"oft_R": vectors, MARK: torch.tensor(False)}, (12, 20)).apply(weight, 1.0)
    assert torch.equal(plain, marked)


def test_any_rows_change_apart() -> None:
    random = Random.seeded()
    delta, weight = delta_of("oft2", {"oft_R": random.tensor(5, 6, size=0.2)}, (12, 20)), random.tensor(12, 20)
    part = delta.rows(3, 4)
    assert part is not None
    torch.testing.assert_close(part.apply(weight[3:7], 0.7), delta.apply(weight, 0.7)[3:7])


def test_blocks_of_one_input_turn_nothing() -> None:
    weight = Random.seeded().tensor(3, 4)
    delta = delta_of("oft2", {"oft_R": torch.zeros(4, 0), MARK: torch.tensor(True)}, (3, 4))
    assert torch.equal(delta.apply(weight, 1.0), weight)


@pytest.mark.parametrize(
    ("vectors", "weight"),
    [
        ((5, 7), (12, 20)),  # 7 is no b * (b - 1) / 2
        ((4, 6), (12, 20)),  # 16 inputs
        ((1, 15), (12, 20)),  # 6 does not divide 20
        ((5, 6), (12, 5, 2, 1)),  # 10 inputs
        ((5, 4, 4), (12, 20)),
        ((1, 6), (20,)),
    ],
)
def test_shapes_that_do_not_fit(vectors: tuple[int, ...], weight: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatchError, match=r"oft_R: expected \(blocks, size \* \(size - 1\) / 2\)"):
        delta_of("oft2", {"oft_R": torch.zeros(vectors)}, weight)
