"""LoRA in parts: the same as its parts joined, and the lists that are refused."""

from __future__ import annotations

import pytest
import torch

from deltas import Random, delta_of
from lora_core.errors import ShapeMismatchError


def test_each_pair_is_of_its_own_rows() -> None:
    random = Random.seeded()
    heights = (3, 3, 4)
    roles = {f"up.{n}": random.tensor(height, 2) for n, height in enumerate(heights)}
    roles |= {f"down.{n}": random.tensor(2, 5) for n in range(3)}
    delta = delta_of("lora_split", roles, (10, 5), alpha=1.0)
    assert (delta.type, delta.rank, delta.scale, set(delta.tensor_names)) == ("lora", 6, 0.5, set(roles))
    expected = torch.cat([0.5 * roles[f"up.{n}"] @ roles[f"down.{n}"] for n in range(3)])
    torch.testing.assert_close(delta.apply(torch.zeros(10, 5), 1.0), expected)
    up, down, scale = delta.factors() or pytest.fail("it is low-rank")
    torch.testing.assert_close(scale * up @ down, expected)


def test_ten_parts_are_in_the_order_of_their_numbers() -> None:
    roles = {f"up.{n}": torch.tensor([[float(n)]]) for n in range(11)} | {
        f"down.{n}": torch.ones(1, 1) for n in range(11)
    }
    delta = delta_of("lora_split", roles, (11, 1))
    assert delta.apply(torch.zeros(11, 1), 1.0).flatten().tolist() == [float(n) for n in range(11)]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"up.0": (3, 2), "down.0": (2, 5), "up.1": (3, 2)}, r"up\.1: expected down\.1 beside it"),
        ({"up.0": (3, 2), "down.0": (2, 5), "down.1": (2, 5)}, r"down\.1: expected up\.1 beside it"),
        ({"up.0": (3, 2), "down.0": (2, 5)}, r"up\.0: expected 6 rows in all blocks together, which have 3"),
        ({"up.0": (3, 2), "down.0": (2, 5), "up.1": (3, 2), "down.1": (2, 4)}, r"down\.1: expected \(2, 5\)"),
        ({"up.0": (3, 2), "down.0": (2, 5), "up.1": (3, 1), "down.1": (2, 5)}, r"up\.1: expected"),
        ({"up.0": (3, 2), "down.0": ()}, r"down\.0: expected"),
    ],
)
def test_parts_that_do_not_fit(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ShapeMismatchError, match=message):
        delta_of("lora_split", {role: torch.zeros(shape) for role, shape in shapes.items()}, (6, 5))
