"""kohya's OFT against its formula, computed with dense matrices of (out, out).

Tolerances are ``assert_close``'s for float32 (1.3e-6 relative, 1e-5 absolute): an inverse against a solution, and sums
in another order.
"""

from __future__ import annotations

import pytest
import torch

from deltas import Random, delta_of
from lora_core.errors import ShapeMismatchError

# A fused matrix as Flux's linear1 has it: q, k, v and mlp, each of four blocks.
SIZES = (3, 3, 3, 12)
OUT = 4 * sum(SIZES)


def dense_rotation(blocks: torch.Tensor, alpha: float) -> torch.Tensor:
    """What sd-scripts' ``get_weight`` makes of one tensor, as one matrix of (rows, rows)."""
    rows = blocks.shape[0] * blocks.shape[1]
    skewed = torch.block_diag(*blocks)
    skewed = skewed - skewed.T
    norm = torch.linalg.vector_norm(skewed)
    skewed = skewed * ((min(norm.item(), alpha * rows) + 1e-8) / (norm + 1e-8))
    one = torch.eye(rows)
    return (one + skewed) @ torch.linalg.inv(one - skewed)


@pytest.mark.parametrize("strength", [1.0, 0.6, -0.5])
@pytest.mark.parametrize("alpha", [1e-3, 0.05, 10.0])
@pytest.mark.parametrize("shape", [(24, 5), (24, 5, 3, 3)], ids=["linear", "conv"])
def test_one_tensor(shape: tuple[int, ...], alpha: float, strength: float) -> None:
    """At fractions too: kohya adds ``multiplier * (R - I)``."""
    random = Random.seeded()
    blocks, weight = random.tensor(4, 6, 6, size=0.3), random.tensor(*shape)
    mixed = strength * (dense_rotation(blocks, alpha) - torch.eye(24)) + torch.eye(24)
    delta = delta_of("kohya-oft", {"kohya_oft_blocks": blocks}, shape, alpha)
    torch.testing.assert_close(delta.apply(weight, strength), (mixed.T @ weight.flatten(1)).reshape(shape))
    assert (delta.type, delta.rank, delta.tensor_names) == ("kohya-oft", None, ("kohya_oft_blocks",))


def parts() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    random = Random.seeded(1)
    tensors = [random.tensor(4, size, size, size=0.3) for size in SIZES]
    # Ten or more entries are in the order of numbers, not of texts; four are enough for a file in any order.
    roles = {f"kohya_oft_blocks.{number}": tensors[number] for number in (2, 0, 3, 1)}
    return roles, random.tensor(OUT, 7)


def expected_of(roles: dict[str, torch.Tensor], weight: torch.Tensor, alpha: float) -> torch.Tensor:
    rotations = [dense_rotation(roles[f"kohya_oft_blocks.{number}"], alpha) for number in range(len(roles))]
    return torch.block_diag(*rotations).T @ weight


def test_a_list_turns_the_rows_of_a_fused_matrix_each_with_a_limit_of_its_own() -> None:
    roles, weight = parts()
    delta = delta_of("kohya-oft", roles, (OUT, 7), alpha=0.01)
    torch.testing.assert_close(delta.apply(weight, 1.0), expected_of(roles, weight, 0.01))
    assert delta.tensor_names == tuple(f"kohya_oft_blocks.{number}" for number in range(4))


@pytest.mark.parametrize(("start", "length"), [(0, 12), (12, 12), (24, 12), (36, 48), (9, 15), (0, OUT), (33, 27)])
def test_rows_on_borders_of_blocks(start: int, length: int) -> None:
    """q, k, v and mlp, and runs of blocks across them, with the limit of the whole entry."""
    roles, weight = parts()
    part = delta_of("kohya-oft", roles, (OUT, 7), alpha=0.01).rows(start, length)
    assert part is not None
    expected = expected_of(roles, weight, 0.01)[start : start + length]
    torch.testing.assert_close(part.apply(weight[start : start + length], 1.0), expected)


@pytest.mark.parametrize(("start", "length"), [(0, 10), (1, 11), (36, 13), (40, 8)])
def test_rows_inside_of_blocks_do_not_change_apart(start: int, length: int) -> None:
    roles, _ = parts()
    assert delta_of("kohya-oft", roles, (OUT, 7)).rows(start, length) is None


def test_an_alpha_of_zero_allows_no_rotation_and_no_alpha_any() -> None:
    """Unlike LyCORIS, whose 0 means no constraint."""
    random = Random.seeded()
    roles, weight = {"kohya_oft_blocks": random.tensor(2, 3, 3)}, random.tensor(6, 5)
    # kohya adds 1e-8 to both norms, so that much of the rotation stays: 1e-7 of numbers around one.
    torch.testing.assert_close(delta_of("kohya-oft", roles, (6, 5), 0.0).apply(weight, 1.0), weight, rtol=0, atol=1e-6)
    free = delta_of("kohya-oft", roles, (6, 5)).apply(weight, 1.0)
    lycoris = delta_of("diag-oft", {"oft_blocks": roles["kohya_oft_blocks"]}, (6, 5), 0.0).apply(weight, 1.0)
    torch.testing.assert_close(free, lycoris)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"": (4, 6, 6)}, r"kohya_oft_blocks: expected \(blocks, size, size\), blocks \* size = 20, got \(4, 6, 6\)"),
        ({"": (4, 5, 6)}, r"kohya_oft_blocks: expected \(blocks, size, size\), got \(4, 5, 6\)"),
        ({"": (20,)}, "kohya_oft_blocks"),
        ({".0": (2, 3, 3), ".1": (2, 3, 3)}, r"kohya_oft_blocks\.1: expected .* = 14"),
        ({".0": (2, 5, 5), ".2": (2, 0, 0)}, r"kohya_oft_blocks\.2: expected \(blocks, size, size\), got \(2, 0, 0\)"),
    ],
)
def test_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    roles = {f"kohya_oft_blocks{end}": torch.zeros(shape) for end, shape in shapes.items()}
    with pytest.raises(ShapeMismatchError, match=message):
        delta_of("kohya-oft", roles, (20, 5))
