"""LoRA and LoCon by hand, and the shapes that are refused."""

from __future__ import annotations

import pytest
import torch

from deltas import Random, delta_of, deltas
from lora_core.errors import ShapeMismatchError


def test_linear_by_hand() -> None:
    roles = {"up": torch.tensor([[1.0], [2.0]]), "down": torch.tensor([[3.0, 4.0, 5.0]])}
    delta = delta_of("lora", roles, (2, 3), alpha=0.5)
    assert (delta.type, delta.rank, delta.scale, set(delta.tensor_names)) == ("lora", 1, 0.5, {"up", "down"})
    # strength 2 * alpha / rank 0.5 = 1
    assert delta.apply(torch.ones(2, 3), 2.0).tolist() == [[4.0, 5.0, 6.0], [7.0, 9.0, 11.0]]


def test_no_alpha_means_scale_one() -> None:
    roles = {"up": torch.ones(2, 4), "down": torch.ones(4, 3)}
    delta = delta_of("lora", roles, (2, 3))
    assert delta.scale == 1.0
    assert torch.equal(delta.apply(torch.zeros(2, 3), 1.0), torch.full((2, 3), 4.0))


def test_convolution_by_definition() -> None:
    """dW[o, i, x, y] = sum_r up[o, r] down[r, i, x, y]; a 2-D up or down (ComfyUI's extract) is the same."""
    random = Random.seeded()
    up, down = random.tensor(5, 2, 1, 1), random.tensor(2, 3, 3, 3)
    expected = torch.einsum("or,rixy->oixy", up.flatten(1), down)
    shapes = {"4-D": (up, down), "2-D": (up.flatten(1), down.flatten(1))}
    for roles in ({"up": u, "down": d} for u, d in shapes.values()):
        delta = delta_of("lora", roles, (5, 3, 3, 3))
        torch.testing.assert_close(delta.apply(torch.zeros(5, 3, 3, 3), 1.0), expected)


def test_tucker_by_definition() -> None:
    """dW[o, i, x, y] = sum_rs up[o, r] mid[r, s, x, y] down[s, i]."""
    random = Random.seeded()
    up, down, mid = random.tensor(5, 2, 1, 1), random.tensor(2, 4, 1, 1), random.tensor(2, 2, 3, 3)
    expected = torch.einsum("or,rsxy,si->oixy", up.flatten(1), mid, down.flatten(1))
    delta = delta_of("lora", {"up": up, "down": down, "mid": mid}, (5, 4, 3, 3), alpha=1.0)
    assert delta.scale == 0.5
    torch.testing.assert_close(delta.apply(torch.zeros(5, 4, 3, 3), 1.0), 0.5 * expected)
    assert set(delta.tensor_names) == {"up", "down", "mid"}


def test_a_linear_lora_fits_a_1x1_convolution_and_the_other_way_round() -> None:
    random = Random.seeded()
    up, down = random.tensor(5, 2), random.tensor(2, 4)
    linear = delta_of("lora", {"up": up, "down": down}, (5, 4)).apply(torch.zeros(5, 4), 1.0)
    stored_4d = {"up": up[..., None, None], "down": down[..., None, None]}
    assert torch.equal(delta_of("lora", stored_4d, (5, 4)).apply(torch.zeros(5, 4), 1.0), linear)
    as_conv = delta_of("lora", {"up": up, "down": down}, (5, 4, 1, 1)).apply(torch.zeros(5, 4, 1, 1), 1.0)
    assert torch.equal(as_conv.flatten(1), linear)


@pytest.mark.parametrize("kernel", [(3,), (1, 2, 2)], ids=["1-D", "3-D"])
def test_kernels_of_any_number_of_dimensions(kernel: tuple[int, ...]) -> None:
    """Video models begin with a 3-D convolution (Hunyuan's img_in.proj: 1 x 2 x 2)."""
    random = Random.seeded()
    ones = [1] * len(kernel)
    up, down = random.tensor(5, 2, *ones), random.tensor(2, 3, *kernel)
    expected = torch.einsum("or,ri...->oi...", up.flatten(1), down)
    delta = delta_of("lora", {"up": up, "down": down}, (5, 3, *kernel))
    torch.testing.assert_close(delta.apply(torch.zeros(5, 3, *kernel), 1.0), expected)
    mid, small = random.tensor(2, 4, *kernel), random.tensor(4, 3, *ones)
    expected = torch.einsum("or,rs...,si->oi...", up.flatten(1), mid, small.flatten(1))
    tucker = delta_of("lora", {"up": up, "down": small, "mid": mid}, (5, 3, *kernel))
    torch.testing.assert_close(tucker.apply(torch.zeros(5, 3, *kernel), 1.0), expected)


def test_the_bias_of_the_up_factor_is_added_to_the_modules() -> None:
    """PEFT's lora_bias; it has the scale of the weight's change."""
    roles = {"up": torch.ones(2, 4), "down": torch.ones(4, 3), "up_bias": torch.tensor([1.0, -2.0])}
    made = deltas("lora", roles, {"weight": (2, 3), "bias": (2,)}, alpha=2.0)
    assert made["bias"].apply(torch.ones(2), 3.0).tolist() == [2.5, -2.0]
    assert (made["bias"].type, made["bias"].scale, made["bias"].tensor_names) == ("lora", 0.5, ("up_bias",))
    with pytest.raises(ShapeMismatchError, match="up_bias: expected no bias in this module"):
        deltas("lora", roles, {"weight": (2, 3)})


def test_apply_leaves_its_input_alone() -> None:
    weight = torch.ones(2, 3)
    delta_of("lora", {"up": torch.ones(2, 1), "down": torch.ones(1, 3)}, (2, 3)).apply(weight, 1.0)
    assert torch.equal(weight, torch.ones(2, 3))


@pytest.mark.parametrize(
    ("weight", "shapes", "key"),
    [
        ((5, 4), {"up": (5, 2), "down": (2, 7)}, "down"),  # another input
        ((5, 4), {"up": (6, 2), "down": (2, 4)}, "up"),  # another output
        ((5, 4), {"up": (5, 3), "down": (2, 4)}, "up"),  # ranks that differ
        ((5, 4), {"up": (5, 2), "down": (4,)}, "down"),  # not a matrix
        ((5, 4), {"up": (5, 0), "down": (0, 4)}, "down"),  # rank 0
        ((5, 4, 3, 3), {"up": (5, 2, 1, 1), "down": (2, 4, 1, 1)}, "down"),  # a 1x1 down on a 3x3 convolution
        ((5, 4, 3, 3), {"up": (5, 2, 3, 3), "down": (2, 4, 3, 3)}, "up"),  # a kernel where none can be
        ((5, 4, 3, 3), {"up": (5, 2), "down": (2, 4), "mid": (2, 2, 1, 1)}, "mid"),  # another kernel
        ((5, 4, 3, 3), {"up": (5, 2), "down": (2, 4, 3, 3), "mid": (2, 2, 3, 3)}, "down"),  # Tucker and whole down
        ((5,), {"up": (5, 2), "down": (2, 1)}, "down"),  # a bias or a norm
    ],
)
def test_shapes_that_do_not_fit(weight: tuple[int, ...], shapes: dict[str, tuple[int, ...]], key: str) -> None:
    roles = {role: torch.zeros(shape) for role, shape in shapes.items()}
    with pytest.raises(ShapeMismatchError, match=rf"^test\.safetensors: {key}: expected ") as caught:
        delta_of("lora", roles, weight)
    assert caught.value.got == shapes[key]
