"""``train``: a run from its settings to a file that does what was trained.

    settings -> model, data, adapter, optimizer (pieces) -> caches -> steps -> LoRA, read back and compared -> state

A run that was cancelled, killed or ended by an error goes on from its last state when it is called again, and ends
with the numbers it would have had: all draws are functions of seed and step, and the state holds the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

from ..errors import ConfigError
from .borrowed import base_digest, borrowed
from .config import TrainConfig, dump_config
from .denoiser import Denoiser
from .events import OnlyCancels, Watcher, Watchers
from .memory import is_out_of_memory
from .output import FileWatcher, RunFolder
from .pieces import build, load_denoiser, open_data
from .prior import generate_prior
from .processes import Processes
from .resuming import check_base, check_data, check_settings, is_written_as
from .run import Run
from .state import State, load_state, remove_states, saved_steps
from .stops import Cancelled, OutOfMemoryError, ResumeError, TrainingStoppedError

Resume = Literal["auto", "never", "must"]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What came of a run.

    Args:
        path: the LoRA; None where the run was cancelled before its first step.
        name: ``output.name``.
        steps: finished ones.
        finished: whether these are all.
        loss: mean over the last steps, NaN where there were none.
        report: numbers and names for users, as JSON.
    """

    path: Path | None
    name: str
    steps: int
    finished: bool
    loss: float
    report: Mapping[str, object]


def train(
    config: TrainConfig,
    *,
    watcher: Watcher | None = None,
    resume: Resume = "auto",
    denoiser: Denoiser | None = None,
) -> TrainResult:
    """Train as the settings say.

    Args:
        config: of ``load_config`` or ``parse_config``.
        watcher: sees progress, and may cancel; the run's own files are written beside it.
        resume: ``auto`` goes on from the last state where there is one and does nothing where the run is finished,
            ``never`` begins anew, ``must`` wants a state.
        denoiser: the model, loaded from ``config.model`` when left out. It is left as it came.

    Raises:
        ConfigError, UnknownCheckpointError, CorruptFileError: settings, model or pictures that cannot be used.
        TrainingStoppedError: going on would be silently wrong; its kinds are in ``stops``.
        MissingExtraError: a library is not installed.
    """
    processes = Processes(config.run)
    told = watcher or Watcher()
    if not processes.main:
        told = OnlyCancels(told)
    folder = RunFolder.of(config.output)
    _check_own(folder)
    state = _state_to_go_on_from(config, folder, processes, told, resume)
    if state is not None and _is_finished(state, config, folder):
        if denoiser is not None:  # it is at hand, so it is known whether it is the one
            check_base(state, base_digest(denoiser), folder.state)
        told.noted(
            f"finished already, at step {state.step}: give more run.steps to train on, another output.name, or begin "
            "anew (--fresh)"
        )
        return _as_reported(state, folder)
    devices = [processes.device] if processes.device.type == "cuda" else []
    with cast(Any, torch.random).fork_rng(devices=devices):  # whoever calls keeps its own random numbers
        try:
            return _train(config, processes, folder, state, told, denoiser, anew=resume == "never")
        except TrainingStoppedError:
            raise
        except Cancelled:  # before the first step
            return _cancelled_early(folder, state.step if state is not None else 0)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            step = state.step if state is not None else 0  # nothing was trained yet, or ``Run`` would have said it
            raise OutOfMemoryError(step, processes.device, config.run.batch, step > 0) from error


def _check_own(folder: RunFolder) -> None:
    """Raise where the LoRA's place is taken by one that no run here made."""
    if folder.lora().exists() and not folder.run.exists():
        fault = f"{folder.lora()} is there already, and no run of this name made it; give another name, or move it away"
        raise ConfigError("output.name", [fault])


def _train(
    config: TrainConfig,
    processes: Processes,
    folder: RunFolder,
    state: State | None,
    watcher: Watcher,
    denoiser: Denoiser | None,
    *,
    anew: bool,
) -> TrainResult:
    watcher.stage("loading the model", 0, 1)
    denoiser = denoiser or load_denoiser(config, processes)
    watcher.stage("loading the model", 1, 1)
    with borrowed(denoiser):
        return _train_on(denoiser, config, processes, folder, state, watcher, anew=anew)


def _train_on(
    denoiser: Denoiser,
    config: TrainConfig,
    processes: Processes,
    folder: RunFolder,
    state: State | None,
    watcher: Watcher,
    *,
    anew: bool,
) -> TrainResult:
    start = state.step if state is not None else 0
    if not _make_prior_pictures(config, denoiser, processes, watcher):
        return _cancelled_early(folder, start)
    pieces = build(config, processes, denoiser)
    files: FileWatcher | None = None
    try:
        if state is not None:
            check_base(state, pieces.base, folder.state)
            check_data(state, pieces.data.digest, folder.state)
        if anew and processes.main:
            remove_states(folder.state)
        if processes.main:
            files = FileWatcher(folder, config.output, start=start)
            folder.config.write_text(dump_config(config), encoding="utf-8")
            watcher = Watchers([files, watcher])  # who is told of a picture finds it on disk
        run = Run(pieces, watcher, state)
        finished = run.go()
        return TrainResult(run.path, folder.name, run.done, finished, run.loss, run.report())
    finally:
        if files is not None:
            files.close()
        pieces.close()


def _state_to_go_on_from(
    config: TrainConfig, folder: RunFolder, processes: Processes, watcher: Watcher, resume: Resume
) -> State | None:
    """The newest state, if it is wanted and fits; raises ResumeError."""
    steps = saved_steps(folder.state)
    step = steps[-1] if steps and resume != "never" else -1
    seen = [int(one) for one in processes.gather(torch.tensor([step], device=processes.device))]
    if len(set(seen)) > 1:
        raise ResumeError(f"{folder.state}: processes see different states ({seen}): give all of them the same folder")
    if step < 0:
        if resume == "must":
            raise ResumeError(f"{folder.state}: there is no state to go on from: leave --resume out to begin")
        return None
    state = load_state(folder.state, step)
    for warning in check_settings(state, config, folder.state):
        watcher.warned(warning)
    if state.facts["processes"] != processes.count:
        watcher.warned(
            f"the run goes on with {processes.count} processes in place of {state.facts['processes']}: steps see "
            f"{processes.count * config.run.batch * config.run.accumulate} pictures, in another order"
        )
    return state


def _is_finished(state: State, config: TrainConfig, folder: RunFolder) -> bool:
    """Whether all steps are done and the files are there. The data is looked at, the model is not loaded."""
    if state.step < config.run.steps or "files" not in state.facts or not is_written_as(state, config):
        return False
    if not all(file.exists() for file in _files(state, folder)):
        return False
    size_step, latent_step = state.facts["pixels"]
    data = open_data(config, size_step, latent_step)
    data.close()
    check_data(state, data.digest, folder.state)
    return True


def _as_reported(state: State, folder: RunFolder) -> TrainResult:
    report = cast("dict[str, Any]", state.facts["report"])
    return TrainResult(_files(state, folder)[0], folder.name, state.step, True, float(state.facts["loss"]), report)


def _files(state: State, folder: RunFolder) -> list[Path]:
    """Of a finished run: the LoRA, or where embeddings alone were trained the first of these, and what goes with it."""
    return [folder.folder / name for name in state.facts["files"]]


def _make_prior_pictures(config: TrainConfig, denoiser: Denoiser, processes: Processes, watcher: Watcher) -> bool:
    """Pictures of the class, drawn by one process for all; False where the watcher cancelled."""
    if not config.data.prior.generate:
        return True
    if processes.main:
        denoiser.set_mode("encode")
        generate_prior(denoiser, config.data, config.run.seed, watcher)
    processes.wait()
    return not processes.any(watcher.cancelled())


def _cancelled_early(folder: RunFolder, step: int) -> TrainResult:
    return TrainResult(None, folder.name, step, False, math.nan, {"folder": str(folder.run)})
