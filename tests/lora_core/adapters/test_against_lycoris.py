"""Our numbers against LyCORIS's own modules: LoCon, LoHa, LoKr, GLoRA, IA3, DyLoRA, its DoRA, full and norm.

Each module is filled with random numbers and asked for its state dict, which we read, and its merged weight, or the
weight that its forward pass amounts to, which we must reach. Tolerances are ``assert_close``'s for float32 (1.3e-6
relative, 1e-5 absolute): the same sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lycoris.modules.dylora import DyLoraModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule

from deltas import deltas

ROLES = {"lora_down.weight": "down", "lora_up.weight": "up", "lora_mid.weight": "mid", "weight": "ia3_weight"}
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


def in_use(module: Any, layer: Any, strength: float = 1.0) -> torch.Tensor:
    """The weight that a module's forward pass amounts to: what comes out for each unit vector, less what does for 0."""
    shape = layer.weight.shape
    units = torch.eye(layer.weight[0].numel()).reshape(-1, *shape[1:])
    module.multiplier = strength
    with torch.no_grad():
        return (module(units) - module(torch.zeros_like(units))).flatten(1).T.reshape(shape)


def made(module: Callable[..., Any], kind: str, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    return layer, filled(module("test", layer, **{"lora_dim": 2, "alpha": 3.0, **options}))


@pytest.mark.parametrize("strength", [1.0, 0.5, -0.7])
@pytest.mark.parametrize("use_tucker", [False, True], ids=["product", "tucker"])
@pytest.mark.parametrize("kind", LAYERS)
def test_loha(kind: str, use_tucker: bool, strength: float) -> None:
    """Tucker only changes kernels larger than 1; the orientation of w1_a and w2_a is another there."""
    layer, module = made(LohaModule, kind, use_tucker=use_tucker)
    result = ours("loha", module, layer, strength)["weight"]
    assert ("hada_t1" in module.state_dict()) == (use_tucker and kind == "conv 3x3")
    torch.testing.assert_close(result, in_use(module, layer, strength))
    assert (result - layer.weight).abs().max() > 0.01


def test_loha_and_lokr_have_the_scale_once() -> None:
    """LyCORIS applies it once when it trains, and twice in its merged weight: 1.5 here, and 2.25."""
    for algorithm, name in ((LohaModule, "loha"), (LokrModule, "lokr")):
        layer, module = made(algorithm, "linear", alpha=3.0)
        assert module.scale == 1.5
        change = ours(name, module, layer, 1.0)["weight"] - layer.weight
        merged, _ = module.get_merged_weight(1.0)
        torch.testing.assert_close(change * 1.5, (merged - layer.weight).detach())


LOKR = {
    "w1 whole, w2 in factors": ({}, {"lokr_w1", "lokr_w2_a", "lokr_w2_b"}),
    "both whole": ({"lora_dim": 100000, "alpha": 7.0}, {"lokr_w1", "lokr_w2"}),
    "both in factors": ({"lora_dim": 1, "decompose_both": True}, {"lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"}),
    "a factor of 2": ({"factor": 2}, {"lokr_w1", "lokr_w2_a", "lokr_w2_b"}),
    "unbalanced": ({"factor": 2, "unbalanced_factorization": True}, {"lokr_w1", "lokr_w2_a", "lokr_w2_b"}),
}


@pytest.mark.parametrize("strength", [1.0, 0.5, -0.7])
@pytest.mark.parametrize("factoring", LOKR)
@pytest.mark.parametrize("kind", LAYERS)
def test_lokr(kind: str, factoring: str, strength: float) -> None:
    """Each factor whole or decomposed; of convolutions the kernel is w2's, flattened where that is decomposed."""
    options, names = LOKR[factoring]
    layer, module = made(LokrModule, kind, **options)
    assert names <= set(module.state_dict())
    result = ours("lokr", module, layer, strength)["weight"]
    torch.testing.assert_close(result, in_use(module, layer, strength))
    assert (result - layer.weight).abs().max() > 0.01


@pytest.mark.parametrize("strength", [1.0, -0.7])
def test_lokr_tucker(strength: float) -> None:
    layer, module = made(LokrModule, "conv 3x3", use_tucker=True)
    assert "lokr_t2" in module.state_dict()
    result = ours("lokr", module, layer, strength)["weight"]
    torch.testing.assert_close(result, in_use(module, layer, strength))


@pytest.mark.parametrize("on_output", [True, False], ids=["on output", "on input"])
@pytest.mark.parametrize("options", [{}, {"use_tucker": True}], ids=["", "tucker"])
@pytest.mark.parametrize(("algorithm", "name"), [(LohaModule, "loha+dora"), (LokrModule, "lokr+dora")])
@pytest.mark.parametrize("kind", LAYERS)
def test_dora_over_loha_and_lokr(
    kind: str, algorithm: Callable[..., Any], name: str, options: dict[str, Any], on_output: bool
) -> None:
    layer, module = made(algorithm, kind, weight_decompose=True, wd_on_out=on_output, **options)
    result = ours(name, module, layer, 1.0)["weight"]
    torch.testing.assert_close(result, in_use(module, layer))
    assert (result - layer.weight).abs().max() > 0.01


@pytest.mark.parametrize("strength", [1.0, 0.5, -0.7])
@pytest.mark.parametrize("kind", LAYERS)
def test_glora(kind: str, strength: float) -> None:
    layer, module = made(GLoRAModule, kind)
    result = ours("glora", module, layer, strength)["weight"]
    merged, _ = module.get_merged_weight(strength)
    torch.testing.assert_close(result, merged.detach())
    torch.testing.assert_close(result, in_use(module, layer, strength))
    assert (result - layer.weight).abs().max() > 0.1


@pytest.mark.parametrize("strength", [1.0, 0.5, -0.7])
@pytest.mark.parametrize("on_input", [True, False], ids=["on input", "on output"])
@pytest.mark.parametrize("kind", [*LAYERS, "square"])
def test_ia3(kind: str, on_input: bool, strength: float) -> None:
    """Of a square weight only ``on_input`` can say which side it is."""
    layers = {**LAYERS, "square": lambda: torch.nn.Linear(12, 12)}
    torch.manual_seed(0)
    layer = layers[kind]()
    module = filled(IA3Module("test", layer, train_on_input=on_input))
    result = ours("ia3", module, layer, strength)["weight"]
    merged, _ = module.get_merged_weight(strength)
    torch.testing.assert_close(result, merged.detach())
    torch.testing.assert_close(result, in_use(module, layer, strength))


@pytest.mark.parametrize("kind", LAYERS)
def test_dylora_is_saved_as_a_lora(kind: str) -> None:
    """Its blocks of ranks are joined when LyCORIS writes: what a file has is an ordinary LoRA, with alpha / rank."""
    layer, module = made(DyLoraModule, kind, lora_dim=4, block_size=2)
    assert set(module.state_dict()) == {"alpha", "lora_up.weight", "lora_down.weight"}
    blocks = zip(module.up_list, module.down_list, strict=True)
    expected = sum(up @ down for up, down in blocks) * (3.0 / 4)
    result = ours("lora", module, layer, 0.5)["weight"]
    torch.testing.assert_close(result, (layer.weight + 0.5 * expected.reshape(layer.weight.shape)).detach())


@pytest.mark.parametrize("only", ["w_norm", "b_norm"])
def test_norm_alone(only: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.LayerNorm(16)
    module = filled(NormModule("test", layer))
    weight, bias = module.get_merged_weight(0.7)
    parameter, kind, merged = ("weight", "norm", weight) if only == "w_norm" else ("bias", "norm_bias", bias)
    shapes = {"weight": (16,), "bias": (16,)}
    [(name, delta)] = deltas(kind, {only: module.state_dict()[only]}, shapes).items()
    assert name == parameter
    torch.testing.assert_close(delta.apply(getattr(layer, parameter).detach(), 0.7), merged.detach())
