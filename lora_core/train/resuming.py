"""A run's pieces as a state on disk, and back; and what may change between the two.

    tensors   network.*, tokens.*, optimizer.*, ema.*
    facts     settings, digests of the data and the base, the rest of optimizer, schedule, scaler and average as JSON

A resumed run computes what an uninterrupted one would have, so whatever a state depends on has to be the same:
the model, what is trained, the optimizer, the data. Other settings may change, and a user is told where it matters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .config import TrainConfig
from .optimizers import flatten_state, load_optimizer, restore_state
from .output.metadata import published
from .pieces import Pieces
from .state import State
from .stops import ResumeError

# Settings that a state depends on, by the beginning of their names.
FIXED = ("model.", "network.", "text_encoder.", "tokens.names", "tokens.start", "optimizer.name", "optimizer.options")
# Of those, what changes a step and no tensor's shape or meaning.
FREE = (
    *("text_encoder.learning_rate", "text_encoder.until", "network.continue_from"),
    *("network.dropout", "network.rank_dropout", "network.module_dropout"),
)
# Settings that the file depends on when all steps are done.
WRITTEN = {
    *("output.format", "output.dtype", "output.title", "output.author", "output.description", "output.license"),
    *("output.tags", "output.comment", "output.thumbnail"),
}
# Settings that say nothing of how the steps go on.
SILENT = ("preset", "run.steps", "run.log_every", "run.device", "run.stuck_after", "samples.", "output.", "validation.")


def snapshot(pieces: Pieces, step: int, more: Mapping[str, object]) -> State:
    """The state after ``step`` steps; ``more``: facts of the run, as JSON."""
    optimizer_tensors, optimizer = flatten_state(pieces.optimizer.state_dict(), "optimizer")
    tensors = {f"network.{name}": tensor for name, tensor in pieces.network.state().items()} | optimizer_tensors
    facts: dict[str, object] = {
        "settings": published(pieces.config),
        "data": pieces.data.digest,
        "base": pieces.base,
        "pixels": [pieces.denoiser.size_step, pieces.denoiser.latent_step],
        "processes": pieces.processes.count,
        "optimizer": optimizer,
        "schedule": flatten_state(pieces.schedule.state_dict())[1],
        **more,
    }
    if pieces.tokens is not None:
        tensors |= {f"tokens.{name}": tensor for name, tensor in pieces.tokens.state().items()}
    if pieces.ema is not None:
        ema_tensors, facts["ema"] = flatten_state(pieces.ema.state_dict(), "ema")
        tensors |= ema_tensors
    if pieces.processes.scaler is not None:
        facts["scaler"] = flatten_state(pieces.processes.scaler.state_dict())[1]
    return State(step, tensors, facts)


def restore(pieces: Pieces, state: State) -> None:
    """Put all of it where it was."""
    facts = state.facts
    pieces.network.load_state(_of(state, "network."))
    if pieces.tokens is not None:
        pieces.tokens.load_state(_of(state, "tokens."))
    rates = [dict(group) for group in pieces.optimizer.param_groups]
    load_optimizer(pieces.optimizer, state.tensors, facts["optimizer"])
    _take_settings(pieces.optimizer, rates, changed="optimizer" in _sections(facts["settings"], pieces.config))
    restore_schedule(pieces, restore_state({}, facts["schedule"]))
    if pieces.ema is not None:
        if "ema" in facts:
            pieces.ema.load_state_dict(restore_state(state.tensors, facts["ema"]))
        else:  # switched on between the two
            pieces.ema.begin()
    if pieces.processes.scaler is not None and "scaler" in facts:
        pieces.processes.scaler.load_state_dict(cast("dict[str, Any]", restore_state({}, facts["scaler"])))


def restore_schedule(pieces: Pieces, told: Mapping[str, Any]) -> None:
    """Position of the schedule; its rates follow from the settings of now, which may have more steps."""
    schedule = cast(LambdaLR, pieces.schedule)
    schedule.last_epoch = int(told["last_epoch"])
    schedule._step_count = int(told["_step_count"])  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
    rates = [base * factor for base, factor in zip(schedule.base_lrs, factors, strict=True)]
    for group, rate in zip(pieces.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]


def check_settings(state: State, config: TrainConfig, path: Path) -> list[str]:
    """Warnings for what changed.

    Raises:
        ResumeError: something changed that the state depends on.
    """
    changed = list(differences(state.facts["settings"], published(config)))
    fixed = [line for name, line in changed if name.startswith(FIXED) and name not in FREE]
    if fixed:
        raise ResumeError(
            f"{path}: the run that is to be gone on with has other settings: {'; '.join(fixed)}. Set them back, choose "
            f"another output.name, or start anew with --fresh"
        )
    told = [line for name, line in changed if name in FREE or not name.startswith((*SILENT, *FIXED, "data."))]
    if not told:
        return []
    if state.step >= config.run.steps:
        way = "raise run.steps or start anew with --fresh"
        return [f"all {state.step} steps of the run are done, so these change nothing ({way}): {'; '.join(told)}"]
    return [f"the run goes on with changed settings: {'; '.join(told)}"]


def is_written_as(state: State, config: TrainConfig) -> bool:
    """Whether the file of a finished run is what the settings of now ask for."""
    changed = {name for name, _ in differences(state.facts["settings"], published(config))}
    return not changed & WRITTEN


def check_base(state: State, base: str, path: Path) -> None:
    """Raise ResumeError where the model is another one of the same name; ``base``: of ``base_digest``."""
    if state.facts.get("base", base) != base:
        raise ResumeError(
            f"{path}: the base model is not the one that the run was begun with: its weights are others, or those of "
            f"its text encoders or VAE. Put it back, choose another output.name, or start anew with --fresh"
        )


def check_data(state: State, digest: str, path: Path) -> None:
    """Raise ResumeError where pictures, captions or the settings that draws depend on are others."""
    if state.facts["data"] != digest:
        raise ResumeError(
            f"{path}: the pictures, captions or settings of [data] are not those of the run that is to be gone on "
            f"with. Put them back, or start anew with --fresh (network.continue_from takes what was learned along)"
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(``network.rank``, ``"network.rank was 8, is 16"``) of each setting that changed."""
    for name in dict.fromkeys((*before, *now)):
        old, new = before.get(name), now.get(name)
        full = f"{prefix}{name}"
        if old == new:
            continue
        if not prefix and isinstance(old, dict) and isinstance(new, dict):
            yield from differences(cast("dict[str, Any]", old), cast("dict[str, Any]", new), f"{full}.")
        else:
            yield full, f"{full} was {_shown(before.get(name))}, is {_shown(now.get(name))}"


def _shown(value: object) -> str:
    """As the TOML file has it, about."""
    return "not set" if value is None else json.dumps(value)


def _sections(before: Mapping[str, Any], config: TrainConfig) -> set[str]:
    return {name.partition(".")[0] for name, _ in differences(before, published(config))}


def _take_settings(optimizer: Optimizer, made: list[dict[str, Any]], *, changed: bool) -> None:
    """Numbers that the settings give come from the settings; the rest, such as Prodigy's estimate, from the state."""
    for group, fresh in zip(optimizer.param_groups, made, strict=True):
        for name in ("lr", "initial_lr", *(("weight_decay", "betas", "eps") if changed else ())):
            if name in fresh:
                group[name] = fresh[name]


def _of(state: State, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): one for name, one in state.tensors.items() if name.startswith(prefix)}
