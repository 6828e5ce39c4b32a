"""HRA by hand and against PEFT's own layers.

Tolerances are ``assert_close``'s for float32 (1.3e-6 relative, 1e-5 absolute): PEFT makes the product of reflections
first, so sums run in another order.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import HRAConfig, get_peft_model, get_peft_model_state_dict

from deltas import Random, delta_of
from lora_core.adapters import ADAPTER_TYPES, Group
from lora_core.errors import ShapeMismatchError
from lora_core.io import TensorDict

LAYERS = {
    "linear": lambda: torch.nn.Linear(20, 12),
    "conv 1x1": lambda: torch.nn.Conv2d(20, 12, 1),
    "conv 3x3": lambda: torch.nn.Conv2d(20, 12, 3),
}


def test_inputs_are_mirrored_in_the_order_of_columns() -> None:
    """First along (3, 4) / 5, then along the first axis."""
    delta = delta_of("hra", {"hra_u": torch.tensor([[3.0, 2.0], [4.0, 0.0]])}, (1, 2))
    weight = torch.tensor([[5.0, 0.0]])
    # (5, 0) - 2 * 3 * (0.6, 0.8) = (1.4, -4.8); then the first number changes its sign.
    torch.testing.assert_close(delta.apply(weight, 1.0), torch.tensor([[-1.4, -4.8]]))
    torch.testing.assert_close(delta.apply(weight, 0.5), torch.tensor([[1.8, -2.4]]))
    assert torch.equal(delta.apply(weight, 0.0), weight)
    assert (delta.type, delta.rank) == ("hra", 2)


def test_a_column_of_zeros_reflects_nothing() -> None:
    weight = Random.seeded().tensor(3, 4)
    assert torch.equal(delta_of("hra", {"hra_u": torch.zeros(4, 2)}, (3, 4)).apply(weight, 1.0), weight)


@pytest.mark.parametrize("orthogonal", [False, True], ids=["", "apply_GS"])
@pytest.mark.parametrize("layer", LAYERS)
def test_merged(layer: str, orthogonal: bool) -> None:
    torch.manual_seed(0)
    base = torch.nn.ModuleDict({"layer": LAYERS[layer]()})
    config = HRAConfig(r=4, apply_GS=orthogonal, target_modules=["layer"], init_weights=False)
    model = get_peft_model(base, config)
    [(name, saved)] = get_peft_model_state_dict(model).items()
    assert name == "base_model.model.layer.hra_u"
    wrapped: Any = model.base_model.model["layer"]
    weight = wrapped.base_layer.weight.detach().clone()
    wrapped.merge()
    roles = dict(TensorDict({"hra_u": saved.detach()}, "test.safetensors"))
    group = Group("test.safetensors", "layer", roles, {"weight": tuple(weight.shape)}, None, settings=config.to_dict())
    delta = ADAPTER_TYPES.get("hra").build(group)["weight"]
    result = delta.apply(weight, 1.0)
    torch.testing.assert_close(result, wrapped.base_layer.weight.detach())
    assert (result - weight).abs().max() > 0.01
    part = delta.rows(3, 4)
    assert part is not None
    torch.testing.assert_close(part.apply(weight[3:7], 1.0), result[3:7])


@pytest.mark.parametrize("shape", [(12, 4), (20,), (20, 0), (20, 4, 1)])
def test_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatchError, match=r"hra_u: expected \(20, 'rank'\)"):
        delta_of("hra", {"hra_u": torch.zeros(shape)}, (12, 20))
