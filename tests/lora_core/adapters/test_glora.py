"""GLoRA by hand, in both orders of storing, and the shapes that are refused."""

from __future__ import annotations

import pytest
import torch

from deltas import Random, delta_of
from lora_core.errors import ShapeMismatchError

NAMES = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")


def roles(*tensors: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip(NAMES, tensors, strict=True))


def test_by_hand() -> None:
    """W A is [[1, 2]] @ [[1], [0]] @ [[0, 10]] = [[0, 10]], B is [[5]] @ [[1, 1]]; times strength 2, times 0.5."""
    stored = roles(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0, 10.0]]), torch.tensor([[5.0]]), torch.ones(1, 2))
    delta = delta_of("glora", stored, (1, 2), alpha=0.5)
    assert (delta.type, delta.rank, delta.scale, set(delta.tensor_names)) == ("glora", 1, 0.5, set(NAMES))
    assert delta.apply(torch.tensor([[1.0, 2.0]]), 2.0).tolist() == [[6.0, 17.0]]
    assert delta.factors() is None  # it depends on the weight


def test_the_first_order_of_storing() -> None:
    """LyCORIS once had a2 @ a1 and b2 @ b1 where it now has a1 @ a2 and b1 @ b2; ComfyUI reads both, and so do we."""
    random = Random.seeded()
    weight = random.tensor(6, 5)
    a1, a2, b1, b2 = random.tensor(5, 2), random.tensor(2, 5), random.tensor(6, 2), random.tensor(2, 5)
    now = delta_of("glora", roles(a1, a2, b1, b2), (6, 5), alpha=1.0).apply(weight, 0.7)
    before = delta_of("glora", roles(a2, a1, b2, b1), (6, 5), alpha=1.0).apply(weight, 0.7)
    assert torch.equal(now, before)
    torch.testing.assert_close(now, weight + 0.7 * 0.5 * (weight @ a1 @ a2 + b1 @ b2))


def test_where_both_orders_fit_it_is_todays() -> None:
    """As many inputs and outputs as ranks: no trainer makes such a file."""
    random = Random.seeded()
    weight = random.tensor(2, 2)
    a1, a2, b1, b2 = (random.tensor(2, 2) for _ in range(4))
    result = delta_of("glora", roles(a1, a2, b1, b2), (2, 2)).apply(weight, 1.0)
    torch.testing.assert_close(result, weight + weight @ a1 @ a2 + b1 @ b2)


def test_convolution_by_definition() -> None:
    """A acts on the channels at each place of the kernel; the kernel of B is b2's. Old files have 1x1 ones alone."""
    random = Random.seeded()
    weight = random.tensor(6, 5, 3, 3)
    a1, a2 = random.tensor(5, 2, 1, 1), random.tensor(2, 5, 1, 1)
    b1, b2 = random.tensor(6, 2, 1, 1), random.tensor(2, 5, 3, 3)
    a = a1.flatten(1) @ a2.flatten(1)
    expected = torch.einsum("oixy,ij->ojxy", weight, a) + torch.einsum("or,rixy->oixy", b1.flatten(1), b2)
    result = delta_of("glora", roles(a1, a2, b1, b2), (6, 5, 3, 3)).apply(weight, -1.0)
    torch.testing.assert_close(result, weight - expected)


@pytest.mark.parametrize(
    ("weight", "shapes", "key"),
    [
        ((6, 5), [(4, 2), (2, 5), (6, 2), (2, 5)], "a1.weight"),  # another input
        ((6, 5), [(5, 2), (2, 5), (7, 2), (2, 5)], "b1.weight"),  # another output
        ((6, 5), [(5, 2), (2, 5), (6, 2), (2, 4)], "b2.weight"),
        ((6, 5), [(), (2, 5), (6, 2), (2, 5)], "a1.weight"),
        ((6,), [(5, 2), (2, 5), (6, 2), (2, 5)], "a1.weight"),  # a norm
    ],
)
def test_shapes_that_do_not_fit(weight: tuple[int, ...], shapes: list[tuple[int, ...]], key: str) -> None:
    with pytest.raises(ShapeMismatchError, match=rf"^test\.safetensors: {key}: expected "):
        delta_of("glora", roles(*map(torch.zeros, shapes)), weight)
