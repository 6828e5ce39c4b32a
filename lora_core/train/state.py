"""The state of a run on disk: all that exact resume needs, written so that a kill at any moment leaves a whole one.

    <run>/state/step-000500/tensors.safetensors    parameters, optimizer, average of the weights
    <run>/state/step-000500/state.json             step, schedule, settings, digest of the data
    <run>/state/step-000500-1/                     the same step saved again, which counts in place of the first
    <run>/state/.partial-*                         what is being written or removed; cleared by the next save

A state is written under a name that nobody reads, flushed to disk, and renamed; then older ones go. A rename never
replaces anything, so a whole state is never out of reach, and none is emptied under a name that is read. Nothing
random is in it: draws are functions of the step (``seeds``).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType] (``PathLike`` of what)
from torch import Tensor

from ..errors import DiskFullError
from ..io.atomic import sync_folder
from .stops import ResumeError

TENSORS, FACTS = "tensors.safetensors", "state.json"
PARTIAL = ".partial-"
KEEP = 2
VERSION = 1
_NAME = re.compile(r"step-(\d+)(?:-(\d+))?")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class State:
    """One moment of a run.

    Args:
        step: finished steps.
        tensors: name -> tensor, any device; names begin with the part, ``network.``, ``optimizer.``, ``ema.``.
        facts: what is not a tensor, as JSON; ``version`` and ``step`` are the file's own names.
    """

    step: int
    tensors: Mapping[str, Tensor]
    facts: Json


def save_state(folder: Path, state: State) -> Path:
    """Write a state and remove those of all but the newest two steps; returns its folder.

    Raises:
        DiskFullError: there is no room for it beside the older ones; those stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = _unread(folder)
    try:
        partial.mkdir()
        _write(partial, state)
        target = _free(folder, state.step)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # of a full disk, above all
        raise
    sync_folder(folder)
    _clean(folder)
    return target


def saved_steps(folder: Path) -> list[int]:
    """Steps of the states in the folder, rising; a damaged one counts, for ``load_state`` to say so."""
    return sorted({step for step, _, _ in _states(folder)})


def load_state(folder: Path, step: int) -> State:
    """Read the state of a step, the last one where it was saved several times.

    Raises:
        ResumeError: there is none, it is damaged, or of a version of this program that wrote states in another way.
    """
    states = _states(folder)
    before = [row for row in states if row[0] <= step]
    if not before or before[-1][0] != step:
        steps = ", ".join(map(str, saved_steps(folder)))
        way = f"Go on from step {steps}" if steps else "Start anew"
        raise ResumeError(f"{folder}: there is no state of step {step}. {way}.")
    path = before[-1][2]
    try:
        facts: object = json.loads((path / FACTS).read_text(encoding="utf-8"))
        if not isinstance(facts, dict) or "version" not in facts:
            raise ValueError(f"{FACTS} does not say its version")
        facts = cast("Json", facts)
        version = facts.pop("version")
        if version == VERSION:
            return State(int(facts.pop("step")), load_file(path / TENSORS), facts)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        way = f"Remove that folder to go on from step {before[-2][0]}" if before[1:] else "Start anew with --fresh"
        raise ResumeError(f"{path}: the state is damaged ({error}). {way}.") from error
    raise ResumeError(
        f"{path}: the state is of version {version}, this program reads {VERSION}. Go on with the program that wrote "
        "it, or start anew with --fresh."
    )


def remove_states(folder: Path) -> None:
    """Forget a run, for one that starts anew. Killed on the way, it leaves the newest, as if it had not begun."""
    for _, _, path in _states(folder):
        _remove(path)
    shutil.rmtree(folder, ignore_errors=True)


def _write(partial: Path, state: State) -> None:
    """Both files, on disk when this returns."""
    size = sum(tensor.nbytes for tensor in state.tensors.values())
    free = shutil.disk_usage(partial).free
    if size > free:
        raise DiskFullError(str(partial.parent), size, free)
    # A copy of each: safetensors refuses tensors that share memory, and views of a flat buffer do; and contiguous,
    # as a copy of a channels-last tensor is not by itself.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.tensors.items()
    }
    save_file(tensors, partial / TENSORS)
    own: Json = {"version": VERSION, "step": state.step}
    facts = own | state.facts | own  # in front, for people, and not to be written over
    (partial / FACTS).write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    for name in (TENSORS, FACTS):
        with (partial / name).open("r+b") as handle:  # Windows flushes only what may be written
            os.fsync(handle.fileno())
    sync_folder(partial)


def _states(folder: Path) -> list[tuple[int, int, Path]]:
    """(step, how often the step was saved before, folder), in the order in which they would be written."""
    here = folder.iterdir() if folder.is_dir() else ()
    named = ((path, _NAME.fullmatch(path.name)) for path in here)
    return sorted((int(match[1]), int(match[2] or 0), path) for path, match in named if match)


def _free(folder: Path, step: int) -> Path:
    """A name for a state of a step that none has, behind those of the same step."""
    again = 1 + max((again for of, again, _ in _states(folder) if of == step), default=-1)
    return folder / (f"step-{step:06d}" + (f"-{again}" if again else ""))


def _unread(folder: Path) -> Path:
    return folder / f"{PARTIAL}{secrets.token_hex(4)}"


def _clean(folder: Path) -> None:
    kept = saved_steps(folder)[-KEEP:]
    newest = {step: path for step, _, path in _states(folder)}
    for step, _, path in _states(folder):
        if step not in kept or path != newest[step]:
            _remove(path)
    for left in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)


def _remove(path: Path) -> None:
    """Under another name first: a kill in between must not leave half a state that is read."""
    doomed = path.rename(_unread(path.parent))
    shutil.rmtree(doomed, ignore_errors=True)
