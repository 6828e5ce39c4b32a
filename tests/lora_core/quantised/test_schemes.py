"""Each scheme of quantised weights: numbers worked out by hand, and what has to hold for all of them.

The same numbers against the host's own layouts are in tests/host/test_quantised.py.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_core.quantised import SCHEMES, dequantised, requantised
from lora_core.quantised.nvfp4 import MAGNITUDES
from lora_core.quantised.swizzle import padded, swizzled, unswizzled
from quantised_weights import empty, layer_of, quantised
from small_models import random

ALL = pytest.mark.parametrize("name", SCHEMES.names)
# |written - W| / |W| of normally distributed numbers at the most. Formats with an exponent err alike at any scale:
# half a step is 2^-4 of a number of e4m3, 2^-3 of one of e5m2. The others depend on the largest number of a row.
ERROR = {
    "float8_e4m3fn": 0.028,
    "float8_e5m2": 0.056,
    "mxfp8": 0.028,
    "nvfp4": 0.10,
    "int8_tensorwise": 0.013,
    "convrot_w4a4": 0.14,
}


def shape_of(name: str) -> tuple[int, int]:
    """Rotation wants groups of 256 columns; the others are given what has to be padded."""
    return (90, 512) if name == "convrot_w4a4" else (90, 200)


@ALL
def test_a_weight_comes_back_within_the_error_of_its_numbers(name: str) -> None:
    weight = random(shape_of(name), 1)
    layer = layer_of(name, shape_of(name))
    back = dequantised(layer, SCHEMES.get(name), quantised(name, weight))

    assert back.shape == weight.shape
    assert float((back - weight).norm() / weight.norm()) < ERROR[name]


@ALL
def test_what_no_patch_changes_keeps_every_bit(name: str) -> None:
    """Dequantised and requantised, a second time: nothing moves."""
    layer, scheme = layer_of(name, shape_of(name)), SCHEMES.get(name)
    parts = quantised(name, random(shape_of(name), 2))
    again = requantised(layer, scheme, dequantised(layer, scheme, parts), parts)

    for role, part in again.items():
        assert part.dtype == parts[role].dtype
        assert torch.equal(bits(part), bits(parts[role])), role


@ALL
def test_a_weight_that_grows_gets_the_scale_it_needs(name: str) -> None:
    """A LoRA at ten times its strength: the numbers beyond the old range are not cut off."""
    layer, scheme = layer_of(name, shape_of(name)), SCHEMES.get(name)
    parts = quantised(name, random(shape_of(name), 3))
    weight = dequantised(layer, scheme, parts) * 10 + random(shape_of(name), 4)
    new = requantised(layer, scheme, weight, parts)
    back = dequantised(layer, scheme, {**parts, **new})

    assert float((back - weight).norm() / weight.norm()) < ERROR[name]
    assert not torch.equal(bits(new["scale"]), bits(parts["scale"])), "the scale is written anew"


@ALL
def test_a_layer_of_zeros_takes_a_patch(name: str) -> None:
    """Its scales may be zero; nothing is divided by them."""
    layer, scheme, shape = layer_of(name, shape_of(name)), SCHEMES.get(name), shape_of(name)
    nothing = empty(name, shape)
    weight = random(shape, 5)
    back = dequantised(layer, scheme, {**nothing, **requantised(layer, scheme, weight, nothing)})
    zero = dequantised(layer, scheme, {**nothing, **requantised(layer, scheme, torch.zeros(shape), nothing)})

    assert torch.equal(zero, torch.zeros(shape))
    assert float((back - weight).norm() / weight.norm()) < ERROR[name]


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def test_fp8_by_hand() -> None:
    """``448 * 0.5 = 224`` fits the scale of 0.5, 225 does not: the scale doubles."""
    layer = layer_of("float8_e4m3fn", (1, 3))
    parts = {"weight": torch.tensor([[448.0, 1.0, -3.0]]).to(torch.float8_e4m3fn), "scale": torch.tensor(0.5)}
    scheme = SCHEMES.get("float8_e4m3fn")

    assert dequantised(layer, scheme, parts).tolist() == [[224.0, 0.5, -1.5]]
    kept = requantised(layer, scheme, torch.tensor([[224.0, 0.6, -1.5]]), parts)
    assert float(kept["scale"]) == 0.5
    # 0.6 / 0.5 = 1.2, between 1.125 and 1.25.
    assert kept["weight"].float().tolist() == [[448.0, 1.25, -3.0]]
    grown = requantised(layer, scheme, torch.tensor([[225.0, 0.5, -1.5]]), parts)
    assert float(grown["scale"]) == 1.0
    assert grown["weight"].float().tolist() == [[224.0, 0.5, -1.5]]


def test_scales_per_row_grow_row_by_row() -> None:
    name, shape = "float8_e4m3fn", (4, 8)
    parts = quantised(name, random(shape, 6), rows=True)
    layer, scheme = layer_of(name, shape), SCHEMES.get(name)
    weight = dequantised(layer, scheme, parts)
    weight[2] *= 4
    new = requantised(layer, scheme, weight, parts)

    assert (new["scale"] / parts["scale"]).flatten().tolist() == [1.0, 1.0, 4.0, 1.0]
    assert torch.equal(dequantised(layer, scheme, {**parts, **new}), weight)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "int8_tensorwise"])
@pytest.mark.parametrize("shape", [(), (3,), (3, 1, 1), (3, 4, 1), (12,)])
def test_a_bank_of_experts_has_scales_per_expert_or_per_row(name: str, shape: tuple[int, ...]) -> None:
    weight, scheme = random((3, 4, 8), 8), SCHEMES.get(name)
    layer = layer_of(name, (3, 4, 8))
    parts = empty(name, (3, 4, 8)) | {"scale": torch.zeros(shape)}
    assert scheme.fault((3, 4, 8), {"scale": shape}, {}) == ""
    new = {**parts, **requantised(layer, scheme, weight, parts)}

    assert new["scale"].shape == shape
    back = dequantised(layer, scheme, new)
    assert float((back - weight).norm() / weight.norm()) < ERROR[name]


def test_nvfp4_by_hand() -> None:
    """Codes of e2m1, the first in the upper half of a byte; a block scale of 2 and an outer one of 0.25."""
    layer, scheme = layer_of("nvfp4", (16, 16)), SCHEMES.get("nvfp4")
    parts = empty("nvfp4", (16, 16))
    parts["scale_2"].fill_(0.25)
    scales = torch.zeros(16, 1)
    scales[0] = 2.0
    parts["scale"] = swizzled(scales.to(torch.float8_e4m3fn).view(torch.uint8)).view(torch.float8_e4m3fn)
    # 0x17 is 0.5 and 6, 0xF2 is -6 and 1.
    parts["weight"][0, :2] = torch.tensor([0x17, 0xF2], dtype=torch.uint8)

    assert dequantised(layer, scheme, parts)[0, :5].tolist() == [0.25, 3.0, -3.0, 0.5, 0.0]
    assert dequantised(layer, scheme, parts)[1:].abs().sum() == 0


def test_ties_of_e2m1_go_to_the_even_code() -> None:
    """As NVIDIA's conversion does: 2.5 lies between 2 (code 4) and 3 (code 5), so it becomes 2."""
    layer, scheme = layer_of("nvfp4", (16, 16)), SCHEMES.get("nvfp4")
    parts = empty("nvfp4", (16, 16))
    middles = [(low + high) / 2 for low, high in pairwise(MAGNITUDES)]
    weight = torch.zeros(16, 16)
    weight[:, :7] = torch.tensor(middles)
    weight[:, 15] = 6.0  # with an outer scale of 1 / 448, the block scale is 448 and the ratio the number itself
    back = dequantised(layer, scheme, {**parts, **requantised(layer, scheme, weight, parts)})

    torch.testing.assert_close(back[0, :7], torch.tensor([0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]), rtol=1e-6, atol=0)


def test_mxfp8_scales_are_powers_of_two() -> None:
    layer, scheme = layer_of("mxfp8", (1, 32)), SCHEMES.get("mxfp8")
    parts = quantised("mxfp8", torch.full((1, 32), 449.0))

    # 449 does not fit 448 * 2^0.
    assert int(parts["scale"].flatten()[0]) == 128
    assert dequantised(layer, scheme, parts)[0, 0] == 448.0


def test_int4_by_hand_without_its_rotation() -> None:
    """The first number is in the lower half: 0xE3 is 3 and -2."""
    layer, scheme = layer_of("convrot_w4a4", (1, 256), convrot=False), SCHEMES.get("convrot_w4a4")
    parts = {"weight": torch.zeros(1, 128, dtype=torch.int8), "scale": torch.tensor([0.5])}
    parts["weight"][0, 0] = 0xE3 - 256
    weight = dequantised(layer, scheme, parts)

    assert weight[0, :3].tolist() == [1.5, -1.0, 0.0]
    assert torch.equal(requantised(layer, scheme, weight, parts)["weight"], parts["weight"])


def test_a_rotation_undoes_itself_and_keeps_lengths() -> None:
    layer, scheme = layer_of("int8_tensorwise", (8, 256), convrot=True), SCHEMES.get("int8_tensorwise")
    weight = torch.zeros(8, 256)
    weight[:, 3] = 1.0
    parts = quantised("int8_tensorwise", weight, rows=True, convrot=True)

    # One number is spread over its group evenly, as 1 / sqrt(256) with both signs.
    assert set(parts["weight"].flatten().tolist()) == {-127, 127}
    # In float32: 256 sums of 256 products.
    torch.testing.assert_close(dequantised(layer, scheme, parts), weight, rtol=1e-6, atol=1e-6)


def test_a_factor_on_the_input_is_part_of_the_weight() -> None:
    """``y = W (x * smooth)``: a LoRA changes ``W * smooth``, and what is stored is that divided by smooth."""
    layer, scheme = layer_of("nvfp4", (16, 32)), SCHEMES.get("nvfp4")
    smooth = torch.linspace(0.5, 2, 32)
    parts = quantised("nvfp4", random((16, 32), 7)) | {"smooth": smooth}
    plain = dequantised(layer, scheme, {role: part for role, part in parts.items() if role != "smooth"})
    weight = dequantised(layer, scheme, parts)

    assert torch.equal(weight, plain * smooth)
    new = requantised(layer, scheme, weight + 0.01, parts)
    assert "smooth" not in new
    back = dequantised(layer, scheme, {**parts, **new})
    assert float((back - weight - 0.01).norm() / weight.norm()) < ERROR["nvfp4"]


@given(st.integers(1, 300), st.integers(1, 12))
def test_the_order_of_block_scales_is_undone(rows: int, columns: int) -> None:
    scales = torch.arange(rows * columns).remainder(251).to(torch.uint8).view(rows, columns)
    stored = swizzled(scales)

    assert tuple(stored.shape) == padded(rows, columns)
    assert torch.equal(unswizzled(stored, rows, columns), scales)


def test_a_tile_of_block_scales_by_hand() -> None:
    """Row 33 is the second of the second 32, so column 2 of it lies at 16 * 1 + 4 * 1 + 2."""
    scales = torch.zeros(128, 4, dtype=torch.uint8)
    scales[33, 2] = 9
    assert int(swizzled(scales).flatten().nonzero()) == 16 + 4 + 2
