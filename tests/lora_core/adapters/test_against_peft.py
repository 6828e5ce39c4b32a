"""Our numbers against PEFT's own layers: LoRA with and without bias, rsLoRA, DoRA, LoHa, LoKr, IA3.

Tolerances: both sides compute in float32 and add up to ``rank`` or ``kernel area * in`` products of numbers
around one in another order, which leaves a few 1e-7 of the largest; 1e-6 is the default of ``assert_close``.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, get_peft_model, get_peft_model_state_dict

from deltas import delta_of
from lora_core import map_source
from lora_core.adapters import ADAPTER_TYPES, Delta, Group
from lora_core.io import TensorDict

LAYERS = {
    "linear": lambda: torch.nn.Linear(20, 12, bias=False),
    "conv 1x1": lambda: torch.nn.Conv2d(20, 12, 1, bias=False),
    "conv 3x3": lambda: torch.nn.Conv2d(20, 12, 3, bias=False),
}
ROLES = {"lora_A.weight": "down", "lora_B.weight": "up", "lora_magnitude_vector": "magnitude"}
RANK = 4


def peft_layer(kind: str, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
    """A layer with an adapter of random numbers, and PEFT's view of it."""
    torch.manual_seed(0)
    base = torch.nn.ModuleDict({"layer": LAYERS[kind]()}).to(dtype)
    options = LoraConfig(r=RANK, target_modules=["layer"], init_lora_weights=False, **config)
    model = get_peft_model(base, options, autocast_adapter_dtype=False)
    layer = model.base_model.model["layer"]
    if config.get("use_dora"):
        # Trained magnitudes differ from the norms that they start as.
        magnitude = layer.lora_magnitude_vector["default"].weight
        magnitude.data *= torch.rand_like(magnitude) + 0.5
    return model, layer


def delta_from(model: Any, layer: Any, alpha: float) -> Delta:
    """Our delta from the tensors that PEFT would save."""
    saved = {name.split("layer.")[1]: tensor for name, tensor in get_peft_model_state_dict(model).items()}
    roles = {ROLES[name]: tensor for name, tensor in saved.items()}
    kind = "dora_peft" if "magnitude" in roles else "lora"
    return delta_of(kind, roles, tuple(layer.base_layer.weight.shape), alpha)


@pytest.mark.parametrize("kind", LAYERS)
def test_lora(kind: str) -> None:
    model, layer = peft_layer(kind, lora_alpha=3)
    delta = delta_from(model, layer, alpha=3)
    assert (delta.rank, delta.scale) == (RANK, 3 / RANK)
    nothing = torch.zeros_like(layer.base_layer.weight)
    torch.testing.assert_close(delta.apply(nothing, 1.0), layer.get_delta_weight("default"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_lora_in_half_precision(dtype: torch.dtype) -> None:
    """PEFT rounds the delta to the factors' dtype, we do not round it at all: half a unit in the last place apart."""
    model, layer = peft_layer("linear", dtype=dtype, lora_alpha=3)
    ours = delta_from(model, layer, alpha=3).apply(torch.zeros(12, 20), 1.0)
    assert torch.equal(ours.to(dtype), layer.get_delta_weight("default"))


@pytest.mark.parametrize("kind", LAYERS)
def test_dora(kind: str) -> None:
    """The norm runs per output; PEFT keeps a convolution's magnitude as (1, out, 1, 1)."""
    model, layer = peft_layer(kind, lora_alpha=3, use_dora=True)
    delta = delta_from(model, layer, alpha=3)
    assert delta.type == "dora"
    weight = layer.base_layer.weight.detach().clone()
    ours = delta.apply(weight, 1.0)
    layer.merge()
    torch.testing.assert_close(ours, layer.base_layer.weight.detach())
    assert (ours - weight).abs().max() > 0.05


def test_rslora() -> None:
    """rsLoRA scales by alpha / sqrt(rank); a file says so in diffusers' metadata alone."""
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"  # 320 x 320
    torch.manual_seed(0)
    base = torch.nn.ModuleDict({"layer": torch.nn.Linear(320, 320, bias=False)})
    options = LoraConfig(r=RANK, lora_alpha=6, use_rslora=True, target_modules=["layer"], init_lora_weights=False)
    layer: Any = get_peft_model(base, options).base_model.model["layer"]
    tensors = {
        f"unet.{path}.lora_A.weight": layer.lora_A["default"].weight,
        f"unet.{path}.lora_B.weight": layer.lora_B["default"].weight,
    }
    settings = {"unet.r": RANK, "unet.lora_alpha": 6, "unet.use_rslora": True}
    source = TensorDict(tensors, "ink.safetensors", {"lora_adapter_metadata": json.dumps(settings)})
    [(_, delta)] = map_source(source, "sd15").deltas
    assert delta.scale == pytest.approx(6 / RANK**0.5)
    torch.testing.assert_close(delta.apply(torch.zeros(320, 320), 1.0), layer.get_delta_weight("default"))


def adapted(kind: str, config: Any, bias: bool = True) -> tuple[Any, dict[str, torch.Tensor]]:
    """A layer with an adapter of random numbers, and the tensors that PEFT would save for it."""
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    if bias:
        layer.bias = torch.nn.Parameter(torch.randn(12))
    model = get_peft_model(torch.nn.ModuleDict({"layer": layer}), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.3 + (1.0 if "ia3" in name else 0.0))
    saved = {name.split("layer.")[1]: tensor for name, tensor in get_peft_model_state_dict(model).items()}
    return model.base_model.model["layer"], saved


def ours(kind: str, layer: Any, roles: dict[str, torch.Tensor], scale: float | None) -> dict[str, torch.Tensor]:
    """The layer's parameters with our deltas, ``scale`` being what PEFT's configuration says."""
    parameters = {name: tensor.detach().clone() for name, tensor in layer.base_layer.named_parameters()}
    shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    group = Group("test.safetensors", "layer", dict(TensorDict(roles)), shapes, None, scale)
    return {name: delta.apply(parameters[name], 1.0) for name, delta in ADAPTER_TYPES.get(kind).build(group).items()}


def equal_to_merged(layer: Any, result: dict[str, torch.Tensor]) -> None:
    before = layer.base_layer.weight.detach().clone()
    layer.merge()
    for name, tensor in result.items():
        torch.testing.assert_close(tensor, getattr(layer.base_layer, name).detach())
    assert (layer.base_layer.weight - before).abs().max() > 0.02


@pytest.mark.filterwarnings("ignore:Adapter 'default'")  # PEFT takes its own bias for a factor of the wrong shape
@pytest.mark.parametrize("kind", LAYERS)
def test_lora_bias(kind: str) -> None:
    config = LoraConfig(r=RANK, lora_alpha=3, lora_bias=True, target_modules=["layer"])
    layer, saved = adapted(kind, config)
    names = {"lora_A.weight": "down", "lora_B.weight": "up", "lora_B.bias": "up_bias"}
    result = ours("lora", layer, {names[name]: tensor for name, tensor in saved.items()}, 3 / RANK)
    assert set(result) == {"weight", "bias"}
    equal_to_merged(layer, result)


@pytest.mark.parametrize("effective", [False, True], ids=["product", "tucker"])
@pytest.mark.parametrize("kind", LAYERS)
def test_loha(kind: str, effective: bool) -> None:
    """``use_effective_conv2d`` is LyCORIS's Tucker form; 1x1 kernels do without, and all others are flattened."""
    config = LoHaConfig(r=2, alpha=3, use_effective_conv2d=effective, target_modules=["layer"])
    layer, saved = adapted(kind, config)
    assert ("hada_t1" in saved) == (effective and kind == "conv 3x3")
    equal_to_merged(layer, ours("loha", layer, saved, 3 / 2))


@pytest.mark.parametrize("effective", [False, True], ids=["product", "tucker"])
@pytest.mark.parametrize(
    ("rank", "both", "names"),
    [
        (2, False, {"lokr_w1", "lokr_w2_a", "lokr_w2_b"}),
        (1, True, {"lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"}),
        (16, False, {"lokr_w1", "lokr_w2"}),
    ],
    ids=["w2 in factors", "both in factors", "both whole"],
)
@pytest.mark.parametrize("kind", LAYERS)
def test_lokr(kind: str, rank: int, both: bool, names: set[str], effective: bool) -> None:
    """Unlike LyCORIS, PEFT applies alpha / r also where both factors are whole."""
    config = LoKrConfig(r=rank, alpha=3, decompose_both=both, use_effective_conv2d=effective, target_modules=["layer"])
    layer, saved = adapted(kind, config)
    assert names <= set(saved) <= names | {"lokr_t2"}
    equal_to_merged(layer, ours("lokr", layer, saved, 3 / rank))


@pytest.mark.parametrize("feedforward", [False, True], ids=["outputs", "inputs"])
@pytest.mark.parametrize("kind", ["linear", "conv 3x3"])
def test_ia3(kind: str, feedforward: bool) -> None:
    config = IA3Config(target_modules=["layer"], feedforward_modules=["layer"] if feedforward else [])
    layer, saved = adapted(kind, config)
    result = ours("ia3_peft", layer, saved, None)
    assert set(saved) == {"ia3_l"}
    assert set(result) == ({"weight"} if feedforward else {"weight", "bias"})
    equal_to_merged(layer, result)
