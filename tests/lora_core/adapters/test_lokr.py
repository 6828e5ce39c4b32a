"""LoKr by hand and by definition, its scale, and the shapes that are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltas import Random, delta_of
from lora_core.adapters import ADAPTER_TYPES, Group
from lora_core.errors import ShapeMismatchError
from lora_core.io import TensorDict

LEFT, RIGHT = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0], [0.0, 1.0, 0.0]])


def test_by_hand() -> None:
    """w1 (1, 2) and w2 (2, 3) make (2, 6): w2 once, and once doubled beside it."""
    delta = delta_of("lokr", {"lokr_w1": LEFT, "lokr_w2": RIGHT}, (2, 6))
    assert (delta.type, delta.rank, delta.scale, delta.tensor_names) == ("lokr", None, 1.0, ("lokr_w1", "lokr_w2"))
    expected = [[2.0, 1.0, 4.0, 3.0, 1.0, 7.0], [1.0, 2.0, 1.0, 1.0, 3.0, 1.0]]
    assert delta.apply(torch.ones(2, 6), 1.0).tolist() == expected
    assert delta.apply(torch.zeros(2, 6), -0.5).tolist()[1] == [0.0, -0.5, 0.0, 0.0, -1.0, 0.0]


def test_both_whole_have_no_rank_so_alpha_says_nothing() -> None:
    """Files hold alphas of 100000, or the rank that the trainer asked for."""
    for alpha in (1.0, 100000.0):
        delta = delta_of("lokr", {"lokr_w1": LEFT, "lokr_w2": RIGHT}, (2, 6), alpha=alpha)
        assert delta.scale == 1.0


def test_both_whole_with_a_scale_that_the_file_states() -> None:
    """PEFT applies alpha / r of its configuration whatever the factoring is."""
    roles = dict(TensorDict({"lokr_w1": LEFT, "lokr_w2": RIGHT}, "test.safetensors"))
    group = Group("test.safetensors", "module", roles, {"weight": (2, 6)}, None, 0.25)
    delta = ADAPTER_TYPES.get("lokr").build(group)["weight"]
    assert delta.apply(torch.zeros(2, 6), 1.0).tolist()[0] == [0.25, 0.0, 0.75, 0.5, 0.0, 1.5]


@pytest.mark.parametrize(
    ("roles", "rank"),
    [
        ({"lokr_w1_a": (3, 2), "lokr_w1_b": (2, 4), "lokr_w2": (5, 6)}, 2),
        ({"lokr_w1": (3, 4), "lokr_w2_a": (5, 2), "lokr_w2_b": (2, 6)}, 2),
        ({"lokr_w1_a": (3, 1), "lokr_w1_b": (1, 4), "lokr_w2_a": (5, 2), "lokr_w2_b": (2, 6)}, 2),
    ],
    ids=["w1 in factors", "w2 in factors", "both in factors"],
)
def test_the_rank_is_that_of_the_factors_of_w2_else_of_w1(roles: dict[str, tuple[int, ...]], rank: int) -> None:
    random = Random.seeded()
    tensors = {role: random.tensor(*shape) for role, shape in roles.items()}
    delta = delta_of("lokr", tensors, (15, 24), alpha=3.0)
    assert (delta.rank, delta.scale) == (rank, 3.0 / rank)
    first = tensors["lokr_w1"] if "lokr_w1" in tensors else tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]
    second = tensors["lokr_w2"] if "lokr_w2" in tensors else tensors["lokr_w2_a"] @ tensors["lokr_w2_b"]
    torch.testing.assert_close(delta.apply(torch.zeros(15, 24), 1.0), torch.kron(first, second) * (3.0 / rank))


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 4)] * 5), st.sampled_from([(), (1, 1), (3, 3), (2,), (1, 2, 2)]))
def test_convolutions_by_definition(sizes: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    """dW[a * c + o, b * d + i, ...] = w1[a, b] w2[o, i, ...], whether w2 is stored whole, flattened or as factors."""
    random = Random.seeded()
    a, b, c, d, rank = sizes
    w1, w2_a, w2_b = random.tensor(a, b), random.tensor(c, rank), random.tensor(rank, d, *kernel)
    w2 = torch.einsum("or,ri...->oi...", w2_a, w2_b)
    expected = torch.einsum("ab,oi...->aobi...", w1, w2).reshape(a * c, b * d, *kernel)
    ones = [1] * len(kernel)
    stored = [
        {"lokr_w2": w2},
        {"lokr_w2": w2.flatten(1)},
        {"lokr_w2_a": w2_a, "lokr_w2_b": w2_b.flatten(1)},
        {"lokr_w2_a": w2_a.reshape(c, rank, *ones), "lokr_w2_b": w2_b},
    ]
    for right in stored:
        delta = delta_of("lokr", {"lokr_w1": w1, **right}, (a * c, b * d, *kernel))
        torch.testing.assert_close(delta.apply(torch.zeros(a * c, b * d, *kernel), 1.0), expected)


def test_tucker_by_definition() -> None:
    """w2_a is (rank, rows of w2) there."""
    random = Random.seeded()
    roles = {
        "lokr_w1": random.tensor(2, 3),
        "lokr_w2_a": random.tensor(4, 5),
        "lokr_w2_b": random.tensor(4, 6),
        "lokr_t2": random.tensor(4, 4, 3, 3),
    }
    w2 = torch.einsum("rsxy,ro,si->oixy", roles["lokr_t2"], roles["lokr_w2_a"], roles["lokr_w2_b"])
    expected = torch.einsum("ab,oixy->aobixy", roles["lokr_w1"], w2).reshape(10, 18, 3, 3)
    delta = delta_of("lokr", roles, (10, 18, 3, 3), alpha=2.0)
    torch.testing.assert_close(delta.apply(torch.zeros(10, 18, 3, 3), 1.0), 0.5 * expected)


def test_which_roles_it_takes() -> None:
    """Of each factor one way of storing it; what is left over is reported as incomplete."""
    row = ADAPTER_TYPES.get("lokr")
    assert row.takes(frozenset({"lokr_w1", "lokr_w2"})) == {"lokr_w1", "lokr_w2"}
    assert row.takes(frozenset({"lokr_w1", "lokr_w2_a"})) == frozenset()
    assert row.takes(frozenset({"lokr_w2", "lokr_w2_a", "lokr_w2_b"})) == frozenset()
    both = frozenset({"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2"})
    assert row.takes(both) == {"lokr_w1", "lokr_w2_a", "lokr_w2_b", "lokr_t2"}
    assert replace(row, one_of=()).takes(both) == frozenset()


@pytest.mark.parametrize(
    ("weight", "shapes", "key"),
    [
        ((6, 8), {"lokr_w1": (4, 2), "lokr_w2": (2, 4)}, "lokr_w1"),  # 4 does not divide 6
        ((6, 8), {"lokr_w1": (2, 3), "lokr_w2": (3, 4)}, "lokr_w1"),  # 3 does not divide 8
        ((6, 8), {"lokr_w1": (2, 2), "lokr_w2": (4, 4)}, "lokr_w2"),
        ((6, 8), {"lokr_w1": (2, 2), "lokr_w2": (4, 3)}, "lokr_w2"),  # turned round
        ((6, 8), {"lokr_w1": (2, 0), "lokr_w2": (3, 4)}, "lokr_w1"),
        ((6, 8), {"lokr_w1": (0, 2), "lokr_w2": (3, 4)}, "lokr_w1"),
        ((6, 8), {"lokr_w1": (4,), "lokr_w2": (3, 4)}, "lokr_w1"),
        ((6, 8), {"lokr_w1": (), "lokr_w2": (3, 4)}, "lokr_w1"),
        ((6, 8), {"lokr_w1_a": (2, 1), "lokr_w1_b": (2, 2), "lokr_w2": (3, 4)}, "lokr_w1_a"),  # ranks that differ
        ((6, 8), {"lokr_w1_a": (2, 1), "lokr_w1_b": (), "lokr_w2": (3, 4)}, "lokr_w1_b"),
        ((6, 8), {"lokr_w1": (2, 2), "lokr_w2_a": (3, 0), "lokr_w2_b": (0, 4)}, "lokr_w2_b"),  # rank 0
        ((6, 8, 3, 3), {"lokr_w1": (2, 2), "lokr_w2": (3, 4)}, "lokr_w2"),  # without a kernel
        ((6,), {"lokr_w1": (2, 1), "lokr_w2": (3, 1)}, "lokr_w1"),  # a norm
    ],
)
def test_shapes_that_do_not_fit(weight: tuple[int, ...], shapes: dict[str, tuple[int, ...]], key: str) -> None:
    roles = {role: torch.zeros(shape) for role, shape in shapes.items()}
    with pytest.raises(ShapeMismatchError, match=rf"^test\.safetensors: {key}: expected "):
        delta_of("lokr", roles, weight)
