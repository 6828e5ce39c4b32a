"""A row of ``OPTIMIZERS`` and groups of parameters -> an optimizer of torch's kind."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches

import torch
from torch.optim import Optimizer

from ...errors import ConfigError, MissingExtraError
from ..config import OptimizerSection
from ..network.group import Group
from .table import OPTIMIZERS, OptimizerRow, Setting

# What the library's own argument is called here and cannot be set twice.
TAKEN = {"lr": "learning_rate", "betas": "betas", "eps": "eps", "weight_decay": "weight_decay"}


def build_optimizer(section: OptimizerSection, groups: Sequence[Group], device: torch.device) -> Optimizer:
    """The optimizer that ``section`` names, with a group of its own for each of ``groups``.

    Each of its ``param_groups`` keeps the group's ``name``, which curves show.

    Raises:
        MissingExtraError: its library is not installed.
        ConfigError: options that it does not have, or rates that it cannot have.
    """
    row = OPTIMIZERS.get(section.name)
    kind = _load(row)
    faults = [*_wrong_options(section, kind), *_wrong_rates(section, row, groups), *_wrong_betas(section, row)]
    if faults:
        raise ConfigError("optimizer", faults)
    settings: dict[str, Setting] = {"lr": section.learning_rate, "weight_decay": section.weight_decay}
    if row.betas is not None:
        settings["betas"] = section.betas or row.betas
    if row.eps is not None:
        settings["eps"] = section.eps or row.eps
    settings |= row.settings(device) | section.options
    each = [{"params": list(group.parameters), "lr": group.learning_rate, "name": group.name} for group in groups]
    return kind(each, **settings)


def _load(row: OptimizerRow) -> Callable[..., Optimizer]:
    try:
        module = importlib.import_module(row.library.module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != row.library.module.split(".")[0]:
            raise  # the library is there, something that it needs is not
        raise MissingExtraError(row.library.package, row.library.extra, f'optimizer.name = "{row.name}"') from error
    return getattr(module, row.class_name)


def _wrong_options(section: OptimizerSection, kind: Callable[..., Optimizer]) -> list[str]:
    """Options that the class has no argument for: some of these take any name and ignore it."""
    known = [name for name in inspect.signature(kind).parameters if name not in ("self", "params", "kwargs", *TAKEN)]
    faults: list[str] = []
    for name in section.options:
        if name in TAKEN:
            faults.append(f"options.{name} is set by {TAKEN[name]}: set that")
        elif name not in known:
            near = get_close_matches(name, known, n=1)
            advice = f"did you mean options.{near[0]}?" if near else f"known: {', '.join(known)}"
            faults.append(f"options.{name}: {section.name} has no such option; {advice}")
    return faults


def _wrong_rates(section: OptimizerSection, row: OptimizerRow, groups: Sequence[Group]) -> list[str]:
    rates = {group.name: group.learning_rate for group in groups}
    if not row.one_rate or len(set(rates.values())) < 2:
        return []
    listed = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
    return [f"{section.name} has one learning rate for all that is trained, got {listed}: set them to the same, 1"]


def _wrong_betas(section: OptimizerSection, row: OptimizerRow) -> list[str]:
    if section.betas is None:
        return []
    if row.betas is None:
        return [f"betas: {section.name} has none; leave them out (momentum is options.momentum)"]
    if len(section.betas) != len(row.betas):
        return [f"betas: {section.name} takes {len(row.betas)}, got {len(section.betas)}"]
    return []
