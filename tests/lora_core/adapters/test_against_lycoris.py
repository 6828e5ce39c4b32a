"""Our numbers against LyCORIS's own modules, for what LyCORIS defines: LoCon, Tucker, its DoRA, full and norm.

Each module is filled with random numbers and asked for its state dict, which we read, and its merged weight,
which we must reach. Tolerances are ``assert_close``'s for float32 (1.3e-6 relative, 1e-5 absolute): the same sums in
another order.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lycoris.modules.full import FullModule
from lycoris.modules.locon import LoConModule
from lycoris.modules.norms import NormModule

from deltas import deltas

ROLES = {"lora_down.weight": "down", "lora_up.weight": "up", "lora_mid.weight": "mid"}
LAYERS = {
    "linear": lambda: torch.nn.Linear(20, 12),
    "conv 1x1": lambda: torch.nn.Conv2d(20, 12, 1),
    "conv 3x3": lambda: torch.nn.Conv2d(20, 12, 3),
}


def filled(module: Any) -> Any:
    """The module with random numbers in all of its parameters."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name == "dora_scale":  # magnitudes are near the norms that they start as
                parameter *= torch.rand_like(parameter) + 0.5
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    return module


def ours(kind: str, module: Any, layer: torch.nn.Module, strength: float) -> dict[str, torch.Tensor]:
    """The layer's parameters with our deltas, from the module's own state dict."""
    saved = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    alpha = saved.pop("alpha", None)
    roles = {ROLES.get(name, name): tensor for name, tensor in saved.items()}
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    made = deltas(kind, roles, shapes, None if alpha is None else alpha.item())
    return {name: delta.apply(parameters[name], strength) for name, delta in made.items()}


def locon(kind: str, **options: Any) -> tuple[torch.nn.Module, Any]:
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    return layer, filled(LoConModule("test", layer, lora_dim=4, alpha=2, **options))


@pytest.mark.parametrize("strength", [1.0, 0.6, -0.5])
@pytest.mark.parametrize("kind", LAYERS)
def test_locon(kind: str, strength: float) -> None:
    layer, module = locon(kind)
    merged, _ = module.get_merged_weight(strength)
    torch.testing.assert_close(ours("lora", module, layer, strength)["weight"], merged.detach())


def test_rslora_is_in_the_alpha() -> None:
    """LyCORIS writes alpha * sqrt(rank), so that a reader needs no sign."""
    layer, module = locon("linear", rs_lora=True)
    merged, _ = module.get_merged_weight(1.0)
    torch.testing.assert_close(ours("lora", module, layer, 1.0)["weight"], merged.detach())


def test_tucker() -> None:
    layer, module = locon("conv 3x3", use_tucker=True)
    assert "lora_mid.weight" in module.state_dict()
    merged, _ = module.get_merged_weight(0.7)
    torch.testing.assert_close(ours("lora", module, layer, 0.7)["weight"], merged.detach())


@pytest.mark.parametrize("on_output", [True, False], ids=["on output", "on input"])
@pytest.mark.parametrize("kind", LAYERS)
def test_dora(kind: str, on_output: bool) -> None:
    """The shape of dora_scale says along which axis the norm runs."""
    layer, module = locon(kind, weight_decompose=True, wd_on_out=on_output)
    merged, _ = module.get_merged_weight(1.0)
    result = ours("dora", module, layer, 1.0)["weight"]
    torch.testing.assert_close(result, merged.detach())
    assert (result - layer.weight).abs().max() > 0.1


def test_dora_with_tucker() -> None:
    layer, module = locon("conv 3x3", weight_decompose=True, use_tucker=True)
    merged, _ = module.get_merged_weight(1.0)
    torch.testing.assert_close(ours("dora", module, layer, 1.0)["weight"], merged.detach())


@pytest.mark.parametrize("strength", [0.0, 0.6, -0.5, 1.5])
@pytest.mark.parametrize("on_output", [True, False], ids=["on output", "on input"])
def test_dora_strength_is_the_way_from_the_base_to_the_merged_weight(on_output: bool, strength: float) -> None:
    """As in the host. LyCORIS's own multiplier is another thing: at 0 it leaves the low-rank part in the weight."""
    layer, module = locon("linear", weight_decompose=True, wd_on_out=on_output)
    weight, (merged, _) = layer.weight.detach(), module.get_merged_weight(1.0)
    result = ours("dora", module, layer, strength)["weight"]
    torch.testing.assert_close(result, weight + strength * (merged.detach() - weight))
    assert (module.get_merged_weight(0.0)[0] - weight).abs().max() > 0.1


@pytest.mark.parametrize("kind", LAYERS)
def test_full(kind: str) -> None:
    """Differences of weight and bias."""
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    module = filled(FullModule("test", layer))
    difference, difference_of_bias = module.get_diff_weight(0.7)
    roles = {"diff": module.weight.detach(), "diff_b": module.bias.detach()}
    shapes = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    made = deltas("full", roles, shapes)
    torch.testing.assert_close(made["weight"].apply(layer.weight.detach(), 0.7), (layer.weight + difference).detach())
    torch.testing.assert_close(made["bias"].apply(layer.bias.detach(), 0.7), (layer.bias + difference_of_bias).detach())


@pytest.mark.parametrize("layer", [torch.nn.LayerNorm(16), torch.nn.GroupNorm(4, 16)], ids=["layer", "group"])
def test_norm(layer: Any) -> None:
    torch.manual_seed(0)
    module = filled(NormModule("test", layer))
    weight, bias = module.get_merged_weight(0.7)
    result = ours("norm", module, layer, 0.7)
    torch.testing.assert_close(result["weight"], weight.detach())
    torch.testing.assert_close(result["bias"], bias.detach())
