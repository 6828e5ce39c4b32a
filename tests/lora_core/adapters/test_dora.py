"""DoRA by hand, on output and on input, and the magnitudes that are refused."""

from __future__ import annotations

import pytest
import torch

from deltas import Random, delta_of, deltas
from lora_core.errors import ShapeMismatchError

NOTHING = {"up": torch.zeros(2, 1), "down": torch.zeros(1, 2)}
WEIGHT = torch.tensor([[3.0, 4.0], [6.0, 8.0]])  # rows of length 5 and 10, columns of length 45 ** 0.5 and 80 ** 0.5


def test_on_output_by_hand() -> None:
    """With nothing in the low-rank part, a magnitude of 1 makes rows of length 1."""
    delta = delta_of("dora", NOTHING | {"dora_scale": torch.ones(2, 1)}, (2, 2))
    torch.testing.assert_close(delta.apply(WEIGHT, 1.0), torch.tensor([[0.6, 0.8], [0.6, 0.8]]))


def test_on_input_by_hand() -> None:
    delta = delta_of("dora", NOTHING | {"dora_scale": torch.tensor([[45.0**0.5, 2 * 80.0**0.5]])}, (2, 2))
    torch.testing.assert_close(delta.apply(WEIGHT, 1.0), torch.tensor([[3.0, 8.0], [6.0, 16.0]]))


def test_the_low_rank_part_turns_the_direction() -> None:
    """V = [[3, 4], [6, 8]] + 0.5 * [[0, 0], [0, 16]] = [[3, 4], [6, 16]]; the rows get lengths 5 and 1."""
    roles = {"up": torch.tensor([[0.0], [1.0]]), "down": torch.tensor([[0.0, 16.0]])}
    delta = delta_of("dora", roles | {"dora_scale": torch.tensor([[5.0], [1.0]])}, (2, 2), alpha=0.5)
    length = (6.0**2 + 16.0**2) ** 0.5
    expected = torch.tensor([[3.0, 4.0], [6.0 / length, 16.0 / length]])
    torch.testing.assert_close(delta.apply(WEIGHT, 1.0), expected)


@pytest.mark.parametrize("strength", [0.5, -1.0, 2.0])
def test_strength_goes_from_the_base_towards_the_result(strength: float) -> None:
    delta = delta_of("dora", NOTHING | {"dora_scale": torch.ones(2, 1)}, (2, 2))
    expected = WEIGHT + strength * (torch.tensor([[0.6, 0.8], [0.6, 0.8]]) - WEIGHT)
    torch.testing.assert_close(delta.apply(WEIGHT, strength), expected)


def test_strength_zero_is_exactly_the_base() -> None:
    random = Random.seeded()
    weight = random.tensor(8, 6)
    assert torch.equal(random.dora((8, 6), 2).apply(weight, 0.0), weight)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 1, 1, 1), (1, 3, 1, 1)], ids=str)
def test_peft_magnitudes_run_over_outputs_in_any_shape(shape: tuple[int, ...]) -> None:
    random = Random.seeded()
    weight, magnitude = random.tensor(3, 4, 3, 3), random.tensor(3).abs()
    roles = {"up": torch.zeros(3, 1), "down": torch.zeros(1, 4, 3, 3), "magnitude": magnitude.reshape(shape)}
    result = delta_of("dora_peft", roles, (3, 4, 3, 3)).apply(weight, 1.0)
    torch.testing.assert_close(result.flatten(1).norm(dim=1), magnitude)


def test_convolution_on_input() -> None:
    """The norm of an input channel runs over outputs and kernel."""
    random = Random.seeded()
    weight, magnitude = random.tensor(5, 4, 3, 3), random.tensor(4).abs()
    roles = {"up": torch.zeros(5, 1), "down": torch.zeros(1, 4, 3, 3), "dora_scale": magnitude.reshape(1, 4, 1, 1)}
    result = delta_of("dora", roles, (5, 4, 3, 3)).apply(weight, 1.0)
    torch.testing.assert_close(result.transpose(0, 1).flatten(1).norm(dim=1), magnitude)


def test_a_row_of_zeros_stays_zero() -> None:
    """It has no direction; a division by its norm would be NaN."""
    weight = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    delta = delta_of("dora", NOTHING | {"dora_scale": torch.ones(2, 1)}, (2, 2))
    torch.testing.assert_close(delta.apply(weight, 1.0), torch.tensor([[0.0, 0.0], [0.6, 0.8]]))


def test_it_is_no_product_of_factors() -> None:
    delta = Random.seeded().dora((4, 4), 2)
    assert delta.factors() is None
    assert (delta.type, delta.rank, delta.scale) == ("dora", 2, 0.5)
    assert set(delta.tensor_names) == {"down", "up", "dora_scale"}


@pytest.mark.parametrize(
    ("kind", "role", "shape"),
    [
        ("dora", "dora_scale", (7, 1)),
        ("dora", "dora_scale", (1, 7)),
        ("dora", "dora_scale", (3, 4)),
        ("dora_peft", "magnitude", (4,)),  # per input, which PEFT never writes
    ],
)
def test_magnitudes_that_do_not_fit(kind: str, role: str, shape: tuple[int, ...]) -> None:
    roles = {"up": torch.zeros(3, 1), "down": torch.zeros(1, 4), role: torch.ones(shape)}
    with pytest.raises(ShapeMismatchError, match=f"{role}: expected"):
        delta_of(kind, roles, (3, 4))


@pytest.mark.parametrize("shape", [(3,), (3, 1)], ids=str)
def test_over_loha_and_lokr(shape: tuple[int, ...]) -> None:
    """The magnitude is the length of each row of the result, whatever made the direction; it may be 1-D."""
    random = Random.seeded()
    weight, magnitude = random.tensor(3, 4), random.tensor(3).abs()
    loha = {f"hada_w{n}_{side}": random.tensor(*size) for n in "12" for side, size in (("a", (3, 2)), ("b", (2, 4)))}
    lokr = {"lokr_w1": random.tensor(3, 2), "lokr_w2": random.tensor(1, 2)}
    for kind, direction in (("loha", loha), ("lokr", lokr)):
        delta = delta_of(f"{kind}+dora", direction | {"dora_scale": magnitude.reshape(shape)}, (3, 4), alpha=1.0)
        plain = delta_of(kind, direction, (3, 4), alpha=1.0)
        result, moved = delta.apply(weight, 1.0), plain.apply(weight, 1.0)
        torch.testing.assert_close(result.norm(dim=1), magnitude)
        torch.testing.assert_close(result, moved * (magnitude / moved.norm(dim=1))[:, None])
        assert (delta.type, delta.rank, delta.scale) == (f"{kind}+dora", plain.rank, plain.scale)


def test_rows_of_outputs_change_apart_and_rows_of_columns_do_not() -> None:
    """A column's norm runs over all rows, so a third of a fused matrix cannot be changed alone."""
    random = Random.seeded()
    weight = random.tensor(9, 4)
    delta = random.dora((9, 4), 2)
    parts = [delta.rows(start, 3) or pytest.fail("rows") for start in (0, 3, 6)]
    result = torch.cat([part.apply(weight[3 * n : 3 * n + 3], 0.7) for n, part in enumerate(parts)])
    torch.testing.assert_close(result, delta.apply(weight, 0.7))
    assert random.dora((9, 4), 2, per_output=False).rows(0, 3) is None


def test_a_bias_of_the_up_factor_is_added_beside_it() -> None:
    roles = NOTHING | {"dora_scale": torch.ones(2, 1), "up_bias": torch.tensor([1.0, 2.0])}
    made = deltas("dora", roles, {"weight": (2, 2), "bias": (2,)})
    assert made["bias"].apply(torch.zeros(2), 0.5).tolist() == [0.5, 1.0]
    assert (made["weight"].type, made["bias"].type) == ("dora", "lora")
