"""Our numbers against PEFT's own layers, for what PEFT defines: LoRA on linear and convolution layers, rsLoRA, DoRA.

Tolerances: both sides compute in float32 and add up to ``rank`` or ``kernel area * in`` products of numbers
around one in another order, which leaves a few 1e-7 of the largest; 1e-6 is the default of ``assert_close``.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

from deltas import delta_of
from lora_core import map_source
from lora_core.adapters import Delta
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
