"""Diag-OFT and BOFT against LyCORIS's own modules, and OFT of LyCORIS 2.0 against its formula written out.

Each module is filled with random numbers; we read its state dict and must reach its merged weight. Tolerances are
``assert_close``'s for float32 (1.3e-6 relative, 1e-5 absolute): LyCORIS inverts where we solve, and sums run in
another order.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule

from deltas import Random, delta_of
from lora_core.adapters import Delta

LAYERS = {
    "linear": lambda: torch.nn.Linear(20, 24),
    "conv 1x1": lambda: torch.nn.Conv2d(20, 24, 1),
    "conv 3x3": lambda: torch.nn.Conv2d(20, 24, 3),
}
MODULES = {"diag-oft": (DiagOFTModule, 4), "boft": (ButterflyOFTModule, 6)}
kinds = pytest.mark.parametrize("kind", MODULES)
layers = pytest.mark.parametrize("layer", LAYERS)


def trained(kind: str, layer: str, **options: Any) -> tuple[torch.Tensor, Any, Delta]:
    """The layer's weight, LyCORIS's module with random numbers, and our delta of its state dict."""
    torch.manual_seed(0)
    base = LAYERS[layer]()
    make, size = MODULES[kind]
    module = make("test", base, lora_dim=size, **options)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (name == "rescale"))
    roles = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    alpha = roles.pop("alpha").item()
    weight = base.weight.detach()
    return weight, module, delta_of("diag-oft", roles, tuple(weight.shape), alpha)


def merged(module: Any, strength: float = 1.0) -> torch.Tensor:
    return module.get_merged_weight(strength)[0].detach()


@kinds
@layers
@pytest.mark.parametrize("rescaled", [False, True], ids=["", "rescaled"])
def test_merged(kind: str, layer: str, rescaled: bool) -> None:
    weight, module, delta = trained(kind, layer, rescaled=rescaled)
    result = delta.apply(weight, 1.0)
    assert delta.type == kind
    assert (result - weight).abs().max() > 0.1
    torch.testing.assert_close(result, merged(module))


def test_boft_has_several_stages() -> None:
    """24 outputs are 4 blocks of 6: three stages."""
    _, module, _ = trained("boft", "linear")
    assert module.oft_blocks.shape == (3, 4, 6, 6)


@kinds
def test_constraint(kind: str) -> None:
    """The file's alpha is the constraint; LyCORIS takes it times the number of outputs."""
    weight, module, delta = trained(kind, "linear", constraint=0.05)
    free_weight, free, _ = trained(kind, "linear")
    assert torch.equal(weight, free_weight)
    assert (merged(module) - merged(free)).abs().max() > 0.01
    torch.testing.assert_close(delta.apply(weight, 1.0), merged(module))


@pytest.mark.parametrize("strength", [0.6, -0.5, 1.5])
def test_fractions_of_diag_oft_are_lycoris_own(strength: float) -> None:
    weight, module, delta = trained("diag-oft", "conv 3x3")
    torch.testing.assert_close(delta.apply(weight, strength), merged(module, strength))


@pytest.mark.parametrize("strength", [0.0, 0.6, -0.5])
@pytest.mark.parametrize(("kind", "rescaled"), [("boft", False), ("boft", True), ("diag-oft", True)])
def test_other_fractions_are_the_way_from_the_base_to_the_merged_weight(
    kind: str, rescaled: bool, strength: float
) -> None:
    """LyCORIS's multiplier is another thing there: it goes into each stage, and ``rescale`` stays at 0 as well."""
    weight, module, delta = trained(kind, "linear", rescaled=rescaled)
    torch.testing.assert_close(delta.apply(weight, strength), weight + strength * (merged(module) - weight))
    assert (merged(module, 0.6) - delta.apply(weight, 0.6)).abs().max() > 0.01


@pytest.mark.parametrize("stored", ["rotation", "difference"])
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_lycoris_2_0(stored: str, strength: float) -> None:
    """``R s + (1 - s) I`` of 2.0.0 to 2.0.2, where R is stored, and ``(R - I) s + I`` of the first builds, as it is."""
    random = Random.seeded()
    difference = random.tensor(6, 4, 4, size=0.1)
    one = torch.eye(4)
    weight = random.tensor(24, 20, 3, 3)
    mixed = difference * strength + one
    expected = torch.einsum("knm,kn...->km...", mixed, weight.unflatten(0, (6, 4))).flatten(0, 1)
    roles = {"oft_diag": difference + one if stored == "rotation" else difference}
    delta = delta_of("oft-diag", roles, tuple(weight.shape))
    torch.testing.assert_close(delta.apply(weight, strength), expected)
    part = delta.rows(8, 12)
    assert part is not None
    torch.testing.assert_close(part.apply(weight[8:20], strength), expected[8:20])
    assert delta.rows(2, 4) is None
