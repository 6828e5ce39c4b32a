"""PEFT's BOFT against PEFT's own layers, and with several stages against its formula.

PEFT has more than one stage only where its CUDA extension compiles; then the layers' own permutations are used here.
Tolerances are ``assert_close``'s for float32 (1.3e-6 relative, 1e-5 absolute): sums in another order.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import BOFTConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.boft.layer import BOFTLayer

from deltas import Random, delta_of
from lora_core.errors import ShapeMismatchError

LAYERS = {
    "linear": lambda: torch.nn.Linear(20, 12),
    "conv 1x1": lambda: torch.nn.Conv2d(20, 12, 1),
    "conv 3x3": lambda: torch.nn.Conv2d(20, 12, 3),
}


@pytest.mark.parametrize("size", [4, 5])
@pytest.mark.parametrize("layer", LAYERS)
def test_merged(layer: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peft.tuners.boft.layer.get_fbd_cuda", lambda: None)  # it would compile
    torch.manual_seed(0)
    base = torch.nn.ModuleDict({"layer": LAYERS[layer]()})
    config = BOFTConfig(boft_block_size=size, target_modules=["layer"], init_weights=False)
    model = get_peft_model(base, config)
    saved = get_peft_model_state_dict(model)
    roles = {name.removeprefix("base_model.model.layer."): tensor.detach() for name, tensor in saved.items()}
    wrapped: Any = model.base_model.model["layer"]
    weight = wrapped.base_layer.weight.detach().clone()
    wrapped.merge()
    delta = delta_of("peft-boft", roles, tuple(weight.shape))
    result = delta.apply(weight, 1.0)
    torch.testing.assert_close(result, wrapped.base_layer.weight.detach())
    assert (result - weight).abs().max() > 0.01
    assert set(delta.tensor_names) == {"boft_R", "boft_s"}


def butterfly(blocks: torch.Tensor) -> torch.Tensor:
    """``get_delta_weight``'s matrix of all stages."""
    stages, count, size, _ = blocks.shape
    inputs = count * size
    skewed = 0.5 * (blocks - blocks.mT)
    rotations = (torch.eye(size) - skewed) @ torch.linalg.inv(torch.eye(size) + skewed)
    made = torch.eye(inputs)
    for stage in range(stages):
        order = BOFTLayer.block_butterfly_perm(None, inputs, count // 2**stage, size // 2, stages - 1)
        moved = torch.eye(inputs)[order]
        made = moved @ torch.block_diag(*rotations[stage]) @ moved.T @ made
    return made


# Fewer blocks than a power of two, and all stages that there can be.
@pytest.mark.parametrize("blocks", [(2, 6, 4, 4), (4, 8, 6, 6), (3, 4, 2, 2)])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_stages(blocks: tuple[int, ...], strength: float) -> None:
    random = Random.seeded()
    matrices, inputs = random.tensor(*blocks), blocks[1] * blocks[2]
    factors, weight = random.tensor(12, 1), random.tensor(12, inputs)
    expected = weight + strength * ((butterfly(matrices) @ weight.T).T * factors - weight)
    delta = delta_of("peft-boft", {"boft_R": matrices, "boft_s": factors}, (12, inputs))
    torch.testing.assert_close(delta.apply(weight, strength), expected)
    part = delta.rows(3, 4)
    assert part is not None
    torch.testing.assert_close(part.apply(weight[3:7], strength), expected[3:7])


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"boft_R": (1, 4, 4, 4), "boft_s": (12, 1)}, r"boft_R: expected .* = 20, got \(1, 4, 4, 4\)"),
        ({"boft_R": (5, 4, 4), "boft_s": (12, 1)}, "boft_R: expected"),
        ({"boft_R": (2, 5, 4, 4), "boft_s": (12, 1)}, "boft_R: expected an even size"),
        ({"boft_R": (2, 4, 5, 5), "boft_s": (12, 1)}, "boft_R: expected an even size"),
        ({"boft_R": (1, 5, 4, 4), "boft_s": (12,)}, r"boft_s: expected \(12, 1\), got \(12,\)"),
    ],
)
def test_shapes_that_do_not_fit(roles: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ShapeMismatchError, match=message):
        delta_of("peft-boft", {role: torch.zeros(shape) for role, shape in roles.items()}, (12, 20))
