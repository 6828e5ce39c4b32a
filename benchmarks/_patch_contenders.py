"""Who is measured by `patch.py`. A contender is made from the work and does one portion of it per call."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from _patch_work import ALPHA_PER_RANK, STRENGTH, Case, Work

from lora_core.patching import apply_patch

# Does a portion and returns its first weight, patched.
Contender = Callable[[int], torch.Tensor]


def copying(work: Work) -> Contender:
    """Floor: read each weight and write it somewhere else."""

    def run(portion: int) -> torch.Tensor:
        results = [case.weight.clone() for case in work.portions[portion]]
        return results[0]

    return run


def products(work: Work) -> Contender:
    """Floor: only the float32 products of factors that are concatenated already, into memory that is there already."""
    prepared = [[case.concatenated() for case in cases] for cases in work.portions]
    largest = max(case.weight.numel() for cases in work.portions for case in cases)
    buffer = torch.empty(largest, device=work.portions[0][0].weight.device)

    def run(portion: int) -> torch.Tensor:
        for up, down in prepared[portion]:
            out = buffer[: up.shape[0] * down.shape[1]].view(up.shape[0], down.shape[1])
            torch.mm(up, down, out=out)
        return buffer

    return run


def ours(work: Work) -> Contender:
    def run(portion: int) -> torch.Tensor:
        results = [apply_patch(case.weight, case.patch) for case in work.portions[portion]]
        return results[0]

    return run


def comfyui(work: Work) -> Contender:
    """What core's model patcher does with each weight: cast a copy, add one patch per LoRA, round."""
    device = work.portions[0][0].weight.device
    import_module("comfy.cli_args").args.cpu = device.type == "cpu"
    management, lora = import_module("comfy.model_management"), import_module("comfy.lora")
    stochastic_rounding = import_module("comfy.float").stochastic_rounding
    adapter = import_module("comfy.weight_adapter.lora").LoRAAdapter
    dtype = management.lora_compute_dtype(device)

    def chain(case: Case) -> list[Any]:
        alpha = case.rank * ALPHA_PER_RANK
        values = [adapter(set(), (up, down, alpha, None, None, None)) for up, down in case.factors]
        return [(STRENGTH, value, 1.0, None, None) for value in values]

    chains = [[chain(case) for case in cases] for cases in work.portions]

    def patched(case: Case, patches: list[Any]) -> torch.Tensor:
        copy = management.cast_to_device(case.weight, device, dtype, copy=True)
        return stochastic_rounding(lora.calculate_weight(patches, copy, "key"), case.weight.dtype)

    def run(portion: int) -> torch.Tensor:
        results = [patched(*pair) for pair in zip(work.portions[portion], chains[portion], strict=True)]
        return results[0]

    return run


def peft(work: Work) -> Contender:
    """PEFT's own merge of each layer, in place, without its check for NaN."""
    models = [_layers(cases) for cases in work.portions]

    def run(portion: int) -> torch.Tensor:
        for layer in models[portion].layers:
            layer.merge()
        return _forget(models[portion])

    return run


def diffusers(work: Work) -> Contender:
    """diffusers' ``fuse_lora``, in place, without its check for NaN."""
    models = [_layers(cases) for cases in work.portions]

    def run(portion: int) -> torch.Tensor:
        models[portion].fuse_lora()
        return _forget(models[portion])

    return run


def _layers(cases: list[Case]) -> Any:
    """A diffusers model of nothing but these layers, with the LoRAs as PEFT adapters."""
    from diffusers.configuration_utils import ConfigMixin
    from diffusers.loaders import PeftAdapterMixin
    from diffusers.models.modeling_utils import ModelMixin
    from peft import LoraConfig

    class Layers(ModelMixin, ConfigMixin, PeftAdapterMixin):
        config_name = "config.json"

        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(_layer(case.weight) for case in cases)

    model = Layers()
    names = [f"lora{number}" for number in range(len(cases[0].factors))]
    for name in names:
        alpha = cases[0].rank * ALPHA_PER_RANK * STRENGTH
        config = LoraConfig(r=cases[0].rank, lora_alpha=alpha, target_modules=r"layers\.\d+", init_lora_weights=False)
        model.add_adapter(config, adapter_name=name)
    model.set_adapter(names)
    for layer, case in zip(model.layers, cases, strict=True):
        for name, (up, down) in zip(names, case.factors, strict=True):
            layer.lora_B[name].weight.data, layer.lora_A[name].weight.data = up, down
    return model


def _layer(weight: torch.Tensor) -> torch.nn.Module:
    out, into, *kernel = weight.shape
    with torch.device("meta"):
        layer = (
            torch.nn.Conv2d(into, out, tuple(kernel), bias=False) if kernel else torch.nn.Linear(into, out, bias=False)
        )
    layer.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
    return layer


def _forget(model: Any) -> torch.Tensor:
    """Let the layers be merged again: the weights drift from round to round, the work stays the same."""
    for layer in model.layers:
        layer.merged_adapters.clear()
    return model.layers[0].weight


def difference(work: Work, contender: Contender) -> float:
    """How far a contender's first weight is from float64, in units of the largest change."""
    case = work.portions[0][0]
    change = torch.zeros(case.weight.flatten(1).shape, dtype=torch.float64, device=case.weight.device)
    for up, down in case.factors:
        change += STRENGTH * ALPHA_PER_RANK * up.flatten(1).double() @ down.flatten(1).double()
    expected = case.weight.double().flatten(1) + change
    got = contender(0).double().flatten(1)
    return ((got - expected).abs().max() / change.abs().max()).item()


FLOORS: dict[str, Callable[[Work], Contender]] = {"copy": copying, "products": products}
CONTENDERS: dict[str, Callable[[Work], Contender]] = {
    "ours": ours,
    "ComfyUI": comfyui,
    "PEFT": peft,
    "diffusers": diffusers,
}
