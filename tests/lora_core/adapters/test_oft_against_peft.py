"""PEFT's OFT: the present one against PEFT's own layers, the two older ones against their formulas written out.

Tolerances are ``assert_close``'s for float32 (1.3e-6 relative, 1e-5 absolute): powers and sums in another order.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from peft import OFTConfig, get_peft_model, get_peft_model_state_dict

from deltas import Random, delta_of
from lora_core.adapters import ADAPTER_TYPES, Delta, Group
from lora_core.errors import ShapeMismatchError
from lora_core.io import TensorDict

LAYERS = {
    "linear": lambda: torch.nn.Linear(20, 12, bias=False),
    "conv 1x1": lambda: torch.nn.Conv2d(20, 12, 1, bias=False),
    "conv 3x3": lambda: torch.nn.Conv2d(20, 12, 3, bias=False),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "shared": {"block_share": True},
    "exact": {"use_cayley_neumann": False},
    "coft": {"coft": True, "eps": 0.3},
    "coft, shared and exact": {"coft": True, "eps": 0.3, "block_share": True, "use_cayley_neumann": False},
    **{f"{terms} terms": {"num_cayley_neumann_terms": terms} for terms in (1, 2, 3, 4, 7)},
}


def peft_layer(layer: str, **settings: Any) -> tuple[torch.Tensor, torch.Tensor, Any, dict[str, Any]]:
    """The layer's weight, what PEFT would save, the layer, and the configuration as PEFT writes it."""
    torch.manual_seed(0)
    base = torch.nn.ModuleDict({"layer": LAYERS[layer]()})
    config = OFTConfig(r=0, oft_block_size=4, target_modules=["layer"], init_weights=False, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT tells of settings that this test is about
        model = get_peft_model(base, config)
    [(name, saved)] = get_peft_model_state_dict(model).items()
    assert name == "base_model.model.layer.oft_R.weight"
    wrapped = model.base_model.model["layer"]
    return wrapped.base_layer.weight.detach().clone(), saved.detach().clone(), wrapped, config.to_dict()


def delta_with(vectors: torch.Tensor, weight: torch.Tensor, settings: dict[str, Any] | None) -> Delta:
    roles = dict(TensorDict({"peft_oft_R": vectors}, "test.safetensors"))
    shapes = {"weight": tuple(weight.shape)}
    group = Group("test.safetensors", "layer", roles, shapes, alpha=None, settings=settings)
    return ADAPTER_TYPES.get("peft-oft").build(group)["weight"]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("layer", LAYERS)
def test_merged(layer: str, settings: str) -> None:
    weight, saved, wrapped, config = peft_layer(layer, **SETTINGS[settings])
    wrapped.merge()
    result = delta_with(saved, weight, config).apply(weight, 1.0)
    torch.testing.assert_close(result, wrapped.base_layer.weight.detach())
    assert ((result - weight).abs().max() > 0.001) == (settings != "1 terms")


@pytest.mark.parametrize("layer", LAYERS)
def test_without_a_configuration_the_defaults_are_taken(layer: str) -> None:
    weight, saved, wrapped, _ = peft_layer(layer)
    wrapped.merge()
    torch.testing.assert_close(delta_with(saved, weight, None).apply(weight, 1.0), wrapped.base_layer.weight.detach())


def test_forward_of_a_linear_layer() -> None:
    weight, saved, wrapped, config = peft_layer("linear")
    inputs = Random.seeded().tensor(3, 20)
    result = inputs @ delta_with(saved, weight, config).apply(weight, 1.0).T
    torch.testing.assert_close(result, wrapped(inputs).detach())


def test_before_0_18_the_last_power_counted_twice() -> None:
    """Configurations state PEFT's version since then: one that does not is older."""
    random = Random.seeded()
    vectors, weight = random.tensor(5, 6, size=0.2), random.tensor(12, 20)
    upper = torch.zeros(5, 4, 4)
    rows, columns = torch.triu_indices(4, 4, 1)
    upper[:, rows, columns] = vectors
    skewed = torch.block_diag(*(upper - upper.mT))
    power = torch.linalg.matrix_power
    rotation = torch.eye(20) + 2 * sum(power(skewed, exponent) for exponent in (1, 2, 3, 4))
    delta = delta_with(vectors, weight, {"peft_type": "OFT", "num_cayley_neumann_terms": 5})
    torch.testing.assert_close(delta.apply(weight, 1.0), weight @ rotation.T)


def old_rotation(blocks: torch.Tensor, count: int) -> torch.Tensor:
    """``_cayley_batch`` and ``_block_diagonal`` up to 0.15, of all blocks as one matrix."""
    skewed = 0.5 * (blocks - blocks.mT)
    one = torch.eye(blocks.shape[-1])
    rotations = (one - skewed) @ torch.linalg.inv(one + skewed)
    return torch.block_diag(*(rotations.expand(count, -1, -1) if len(rotations) == 1 else rotations))


@pytest.mark.parametrize("blocks", [5, 1], ids=["", "shared"])
@pytest.mark.parametrize("shape", [(12, 20), (12, 5, 2, 2)], ids=["linear", "conv"])
def test_0_14_turned_inputs_and_scaled_outputs(shape: tuple[int, ...], blocks: int) -> None:
    random = Random.seeded()
    matrices, factors, weight = random.tensor(blocks, 4, 4), random.tensor(12, 1), random.tensor(*shape)
    expected = (old_rotation(matrices, 5) @ weight.flatten(1).T).T * factors
    delta = delta_of("peft-oft-old", {"oft_r": matrices, "oft_s": factors}, shape)
    torch.testing.assert_close(delta.apply(weight, 1.0), expected.reshape(shape))
    part = delta.rows(3, 4)
    assert part is not None
    torch.testing.assert_close(part.apply(weight[3:7], 1.0), expected.reshape(shape)[3:7])


@pytest.mark.parametrize("blocks", [4, 1], ids=["", "shared"])
@pytest.mark.parametrize("shape", [(12, 20), (11, 20), (11, 5, 2, 2)], ids=["linear", "cut off", "conv, cut off"])
def test_0_13_turned_outputs(shape: tuple[int, ...], blocks: int) -> None:
    random = Random.seeded()
    out = shape[0]
    matrices, weight = random.tensor(blocks, 3, 3), random.tensor(*shape)
    expected = (weight.flatten(1).T @ old_rotation(matrices, 4)[:out, :out]).T.reshape(shape)
    delta = delta_of("peft-oft-old", {"oft_r": matrices}, shape)
    torch.testing.assert_close(delta.apply(weight, 1.0), expected)
    for start, length in ((3, 3), (6, out - 6), (0, out)):
        part = delta.rows(start, length)
        assert part is not None
        torch.testing.assert_close(part.apply(weight[start : start + length], 1.0), expected[start : start + length])
    assert delta.rows(1, 3) is None


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"peft_oft_R": (4, 6)}, r"peft_oft_R: expected .* = 20, or one block for all, got \(4, 6\)"),
        ({"oft_r": (4, 4, 4)}, r"oft_r: expected \(blocks, size, size\), blocks \* size = 12"),
        ({"oft_r": (4, 4, 4), "oft_s": (12, 1)}, r"oft_r: expected \(blocks, size, size\), blocks \* size = 20"),
        ({"oft_r": (3, 7, 7), "oft_s": (12, 1)}, r"oft_r: expected .* = 20"),
        ({"oft_r": (5, 4, 4), "oft_s": (12,)}, r"oft_s: expected \(12, 1\), got \(12,\)"),
        ({"oft_r": (12, 1)}, "oft_r: expected"),
    ],
)
def test_shapes_that_do_not_fit(roles: dict[str, tuple[int, ...]], message: str) -> None:
    kind = "peft-oft" if "peft_oft_R" in roles else "peft-oft-old"
    with pytest.raises(ShapeMismatchError, match=message):
        delta_of(kind, {role: torch.zeros(shape) for role, shape in roles.items()}, (12, 20))
