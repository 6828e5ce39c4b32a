"""PEFT puts adapters into a model, and we take them out again."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ...errors import ConfigError, MissingExtraError
from ..config.network import NetworkSection
from ..hushed import hushed
from .layers import NAME, Kind, Layer
from .planning import Plan, modules_of


def check_free(module: nn.Module, where: str) -> None:
    """Raise where PEFT is missing, or was here before us.

    Raises:
        MissingExtraError: PEFT is not installed.
        ConfigError: the module has adapters already.
    """
    try:
        with hushed():
            from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:
        raise MissingExtraError("peft", "train", "training a LoRA") from None
    if hasattr(module, "peft_config") or any(isinstance(one, BaseTunerLayer) for one in module.modules()):
        raise ConfigError(where, ["the model has adapters of PEFT already; unload them first"])


def inject(module: nn.Module, plans: Sequence[Plan], section: NetworkSection, where: str) -> list[Layer]:
    """Put the planned adapters in; everything else of the module is frozen. Factors are float32.

    Raises:
        ConfigError: PEFT has no such adapter for one of the layers.
    """
    from peft import inject_adapter_in_model

    flags = {path: one.training for path, one in modules_of(module)}
    with warnings.catch_warnings():
        # OFT's blocks that do not fit are made smaller; the report tells the sizes.
        warnings.filterwarnings("ignore", message="Invalid `oft_block_size`")
        try:
            inject_adapter_in_model(_config(plans, section), module, NAME)
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            take_out(module)
            raise ConfigError(where, [f"PEFT cannot put a {section.type} into this model: {error}"]) from error
    layers = [Layer(plan.path, _kind(section), module.get_submodule(plan.path), plan.name) for plan in plans]
    for layer in layers:
        layer.peft.train()
        layer.base.train(flags[layer.path])
        for tensor in layer.tensors().values():
            tensor.data = tensor.data.float()
            tensor.requires_grad_(True)
    return layers


def take_out(module: nn.Module) -> None:
    """Put the modules themselves back in the places of PEFT's layers."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for path, one in modules_of(module):
        if isinstance(one, BaseTunerLayer):
            parent, _, name = path.rpartition(".")
            setattr(module.get_submodule(parent), name, one.get_base_layer())
    if hasattr(module, "peft_config"):
        del module.peft_config


def _kind(section: NetworkSection) -> Kind:
    return section.type


def _config(plans: Sequence[Plan], section: NetworkSection) -> Any:
    """PEFT's configuration. Modules are named by expressions of whole paths, as a list would match endings too."""
    import peft

    targets = _any_of([plan.path for plan in plans])
    if section.type == "oft":
        # The last word on blocks is the layer's; the other settings are PEFT's own, which OneTrainer's files share.
        return peft.OFTConfig(oft_block_size=section.rank, r=0, target_modules=targets)
    first = plans[0]
    ranks = _patterns(plans, lambda plan: plan.rank, first.rank)
    alphas = _patterns(plans, lambda plan: plan.alpha, first.alpha)
    if section.type in ("lora", "dora"):
        return peft.LoraConfig(
            r=first.rank,
            lora_alpha=first.alpha,  # pyright: ignore[reportArgumentType]  it is a divisor, and floats are in use
            target_modules=targets,
            rank_pattern=ranks,
            alpha_pattern=alphas,
            lora_dropout=section.dropout,
            use_rslora=section.rslora,
            use_dora=section.type == "dora",
        )
    shared: dict[str, Any] = {
        "r": first.rank,
        "alpha": first.alpha,
        "target_modules": targets,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "rank_dropout": section.rank_dropout,
    }
    if section.type == "loha":
        return peft.LoHaConfig(**shared)
    return peft.LoKrConfig(**shared, decompose_factor=section.decompose_factor, rank_dropout_scale=True)


def _any_of(paths: Sequence[str]) -> str:
    return "(?:" + "|".join(re.escape(path) for path in paths) + ")"


def _patterns(plans: Sequence[Plan], value: Callable[[Plan], float], usual: float) -> dict[str, Any]:
    """Expression -> value of the modules with another one than the usual."""
    others: dict[float, list[str]] = {}
    for plan in plans:
        if value(plan) != usual:
            others.setdefault(value(plan), []).append(plan.path)
    made: Mapping[float, list[str]] = others
    return {f"^{_any_of(paths)}": number for number, paths in made.items()}


def configuration(module: nn.Module) -> dict[str, Any]:
    """PEFT's configuration of what ``inject`` put into a module."""
    config: Any = module.peft_config
    return dict(config[NAME].to_dict())
