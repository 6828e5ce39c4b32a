"""The state of a run on disk: all that exact resume needs, written so that a kill at any moment leaves a whole one.

    <run>/state/step-000500/tensors.safetensors    parameters, optimizer, average of the weights
    <run>/state/step-000500/state.json             step, schedule, settings, digest of the data
    <run>/state/.partial-*                         a save that did not finish; removed by the next

A state is written under a name that nobody reads, flushed to disk, and renamed; then older ones go. Nothing random
is in it: draws are functions of the step (``seeds``).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from .stops import ResumeError

TENSORS, FACTS = "tensors.safetensors", "state.json"
PARTIAL = ".partial-"
KEEP = 2
VERSION = 1

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class State:
    """One moment of a run.

    Args:
        step: finished steps.
        tensors: name -> tensor, any device; names begin with the part, ``network.``, ``optimizer.``, ``ema.``.
        facts: what is not a tensor, as JSON.
    """

    step: int
    tensors: Mapping[str, Tensor]
    facts: Json


def save_state(folder: Path, state: State) -> Path:
    """Write a state and remove all but the newest two; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{PARTIAL}{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    # A copy of each: safetensors refuses tensors that share memory, and views of a flat buffer do.
    save_file({name: tensor.detach().cpu().clone() for name, tensor in state.tensors.items()}, partial / TENSORS)
    facts = {"version": VERSION, "step": state.step, **state.facts}
    (partial / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    for name in (TENSORS, FACTS):
        _flush(partial / name)
    _flush(partial)
    target = folder / f"step-{state.step:06d}"
    if target.exists():  # saved before at this step: a rename does not replace a folder
        shutil.rmtree(target)
    partial.rename(target)
    _flush(folder)
    _clean(folder)
    return target


def saved_steps(folder: Path) -> list[int]:
    """Steps of the states in the folder, rising."""
    if not folder.is_dir():
        return []
    names = (path.name.removeprefix("step-") for path in folder.glob("step-*") if (path / FACTS).is_file())
    return sorted(int(name) for name in names if name.isdigit())


def load_state(folder: Path, step: int) -> State:
    """Read the state of a step.

    Raises:
        ResumeError: it is damaged, or of a version of this program that wrote states in another way.
    """
    path = folder / f"step-{step:06d}"
    try:
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
        tensors = load_file(path / TENSORS)
    except Exception as error:
        raise ResumeError(f"{path}: cannot be read ({error}). Remove it to go on from an older state.") from error
    if facts.get("version") != VERSION:
        raise ResumeError(
            f"{path}: its version is {facts.get('version')}, this program reads {VERSION}. Start with --fresh."
        )
    return State(int(facts["step"]), tensors, facts)


def remove_states(folder: Path) -> None:
    """Forget a run, for one that starts anew."""
    shutil.rmtree(folder, ignore_errors=True)


def _clean(folder: Path) -> None:
    for step in saved_steps(folder)[:-KEEP]:
        shutil.rmtree(folder / f"step-{step:06d}", ignore_errors=True)
    for left in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)


def _flush(path: Path) -> None:
    """To the disk, so that a rename never comes before the content (folders cannot be flushed on Windows)."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
