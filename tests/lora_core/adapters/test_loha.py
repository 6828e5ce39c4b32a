"""LoHa by hand and by definition, and the shapes that are refused."""

from __future__ import annotations

import pytest
import torch

from deltas import Random, delta_of
from lora_core.errors import ShapeMismatchError

W1_A, W1_B, W2_A, W2_B = "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"


def test_linear_by_hand() -> None:
    roles = {
        W1_A: torch.tensor([[1.0], [2.0]]),
        W1_B: torch.tensor([[1.0, 1.0, 3.0]]),
        W2_A: torch.tensor([[10.0], [1.0]]),
        W2_B: torch.tensor([[1.0, 2.0, 0.0]]),
    }
    delta = delta_of("loha", roles, (2, 3), alpha=0.5)
    assert (delta.type, delta.rank, delta.scale, set(delta.tensor_names)) == ("loha", 1, 0.5, set(roles))
    # [[1, 1, 3], [2, 2, 6]] times [[10, 20, 0], [1, 2, 0]], times strength 2 * alpha / rank 0.5.
    assert delta.apply(torch.ones(2, 3), 2.0).tolist() == [[11.0, 21.0, 1.0], [3.0, 5.0, 1.0]]
    assert delta.apply(torch.zeros(2, 3), -1.0).tolist() == [[-5.0, -10.0, 0.0], [-1.0, -2.0, 0.0]]


def test_convolution_by_definition() -> None:
    """dW[o, i, x, y] is a product of two sums over ranks; OneTrainer stores the factors 4-D, LyCORIS flattened."""
    random = Random.seeded()
    roles = {
        W1_A: random.tensor(5, 2, 1, 1),
        W1_B: random.tensor(2, 3, 3, 3),
        W2_A: random.tensor(5, 2, 1, 1),
        W2_B: random.tensor(2, 3, 3, 3),
    }
    first, second = (
        torch.einsum("or,rixy->oixy", roles[a].flatten(1), roles[b]) for a, b in ((W1_A, W1_B), (W2_A, W2_B))
    )
    flat = {role: tensor.flatten(1) for role, tensor in roles.items()}
    for stored in (roles, flat):
        delta = delta_of("loha", stored, (5, 3, 3, 3), alpha=1.0)
        torch.testing.assert_close(delta.apply(torch.zeros(5, 3, 3, 3), 1.0), 0.5 * first * second)


@pytest.mark.parametrize("kernel", [(3, 3), (3,), (3, 1, 2)], ids=str)
def test_tucker_by_definition(kernel: tuple[int, ...]) -> None:
    """w1_a and w2_a are (rank, out) there; a kernel may have any number of dimensions, PEFT adds one to 1-D kernels."""
    random = Random.seeded()
    roles = {
        W1_A: random.tensor(2, 5),
        W1_B: random.tensor(2, 4),
        "hada_t1": random.tensor(2, 2, *kernel),
        W2_A: random.tensor(2, 5),
        W2_B: random.tensor(2, 4),
        "hada_t2": random.tensor(2, 2, *kernel),
    }
    first, second = (
        torch.einsum("rs...,ro,si->oi...", roles[t], roles[a], roles[b])
        for t, a, b in (("hada_t1", W1_A, W1_B), ("hada_t2", W2_A, W2_B))
    )
    delta = delta_of("loha", roles, (5, 4, *kernel))
    torch.testing.assert_close(delta.apply(torch.zeros(5, 4, *kernel), 1.0), first * second)
    extended = {role: tensor[..., None] if "_t" in role else tensor for role, tensor in roles.items()}
    again = delta_of("loha", extended, (5, 4, *kernel))
    torch.testing.assert_close(again.apply(torch.zeros(5, 4, *kernel), 1.0), first * second)


@pytest.mark.parametrize(
    ("weight", "shapes", "key"),
    [
        ((5, 4), {W1_A: (5, 2), W1_B: (2, 7), W2_A: (5, 2), W2_B: (2, 4)}, W1_B),  # another input
        ((5, 4), {W1_A: (5, 2), W1_B: (2, 4), W2_A: (6, 2), W2_B: (2, 4)}, W2_A),  # another output
        ((5, 4), {W1_A: (5, 3), W1_B: (2, 4), W2_A: (5, 2), W2_B: (2, 4)}, W1_A),  # ranks that differ
        ((5, 4), {W1_A: (5, 0), W1_B: (0, 4), W2_A: (5, 2), W2_B: (2, 4)}, W1_B),  # rank 0
        ((5, 4), {W1_A: (), W1_B: (2, 4), W2_A: (5, 2), W2_B: (2, 4)}, W1_A),  # a number
        ((5, 4, 3, 3), {W1_A: (2, 5), W1_B: (2, 4), W2_A: (2, 5), W2_B: (2, 4), "hada_t1": (2, 2, 3, 3)}, "hada_t1"),
        (
            (5, 4, 3, 3),
            {
                W1_A: (2, 5),
                W1_B: (2, 4),
                W2_A: (2, 5),
                W2_B: (2, 4),
                "hada_t1": (2, 2, 3, 3),
                "hada_t2": (2, 2, 1, 1),
            },
            "hada_t2",
        ),
        ((5,), {W1_A: (5, 2), W1_B: (2, 1), W2_A: (5, 2), W2_B: (2, 1)}, W1_A),  # a norm
    ],
)
def test_shapes_that_do_not_fit(weight: tuple[int, ...], shapes: dict[str, tuple[int, ...]], key: str) -> None:
    roles = {role: torch.zeros(shape) for role, shape in shapes.items()}
    with pytest.raises(ShapeMismatchError, match=rf"^test\.safetensors: {key}: expected "):
        delta_of("loha", roles, weight)
