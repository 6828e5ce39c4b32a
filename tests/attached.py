"""PEFT's LoRA on a module, with factors that are not zero: for tests of models that stand under adapters."""

from __future__ import annotations

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn


def attach(module: nn.Module, targets: tuple[str, ...] = ("to_q", "to_v"), rank: int = 4) -> list[nn.Parameter]:
    """Freeze the module and put adapters in; returns their parameters, float32."""
    module.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets))
    inject_adapter_in_model(config, module, adapter_name="test")
    generator = torch.Generator().manual_seed(5)
    parameters: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if "lora_" in name:
            parameter.data = (torch.randn(parameter.shape, generator=generator) * 0.05).to(parameter.device)
            parameters.append(parameter.requires_grad_(True))
    return parameters


def gradients(parameters: list[nn.Parameter]) -> Tensor:
    """All as one row; parameters without a gradient are an error."""
    missing = [index for index, parameter in enumerate(parameters) if parameter.grad is None]
    assert not missing, f"{len(missing)} of {len(parameters)} parameters have no gradient"
    return torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
