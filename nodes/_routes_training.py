"""The routes of training: which runs there are on disk, and the curves and samples of each."""

from __future__ import annotations

import re
from pathlib import Path

import folder_paths

from ..lora_core.errors import UnknownNameError
from ..lora_core.train.history import History, Summary, history, prompt_of, run_folders, summary
from . import _train_live
from ._files import lora_names, runs_folder
from ._route import Asked, Json, Route

_STEP = re.compile(r"(.+)-(\d{6,})")


def _runs(_: Asked) -> Json:
    loras = _loras()
    folders = run_folders(runs_folder())
    found = [summary(folder, run) for run, folder in folders.items()]
    found += [Summary.begun(run) for run in _train_live.runs() if run not in folders]
    found.sort(key=lambda one: (one.modified, one.run), reverse=True)
    return {"runs": [_row(one, loras) for one in found]}


def _run(asked: Asked) -> Json:
    folders = run_folders(runs_folder())
    run = asked.text("run")
    if run in folders:  # a name of the list, so never a path elsewhere
        found = history(folders[run], run)
    elif run in _train_live.runs():
        found = History.begun(run)
    else:
        raise UnknownNameError("run", run, list(folders))
    return {**_row(found.summary, _loras()), **_whole(found)}


def _row(one: Summary, loras: dict[str, str]) -> Json:
    return {
        "run": one.run,
        "lora": loras.get(one.run, ""),
        "step": one.step,
        "steps": one.steps,
        "finished": one.finished,
        "modified": one.modified,
        "loss": one.loss,
        "samples": one.samples,
        "preview": _viewed(one.preview) if one.preview else None,
        "fault": one.fault,
        "live": _train_live.live(one.run),
    }


def _whole(found: History) -> Json:
    samples = [
        {"step": step, "images": [{**_viewed(path), "prompt": prompt_of(path)} for path in pictures.values()]}
        for step, pictures in found.samples.items()
    ]
    return {
        "config": found.config,
        "losses": found.losses,
        "validation": found.validation,
        "rates": found.rates,
        "samples": samples,
    }


def _viewed(path: Path) -> Json:
    """What the host's ``/view`` wants to know; ``changed`` tells two pictures of one name apart."""
    place = path.parent.relative_to(folder_paths.get_output_directory())
    return {
        "filename": path.name,
        "subfolder": place.as_posix(),
        "type": "output",
        "changed": int(path.stat().st_mtime) if path.exists() else 0,
    }


def _loras() -> dict[str, str]:
    """Run -> its LoRA's name in the host's list: the finished one, or else that of its newest step."""
    whole: dict[str, str] = {}
    newest: dict[str, tuple[int, str]] = {}
    for name in lora_names():
        stem = name.replace("\\", "/").removesuffix(".safetensors")
        whole[stem] = name
        if match := _STEP.fullmatch(stem):
            newest[match[1]] = max(newest.get(match[1], (0, "")), (int(match[2]), name))
    return {run: name for run, (_, name) in newest.items()} | whole


ROUTES: tuple[Route, ...] = (Route("GET", "/loom/runs", _runs), Route("GET", "/loom/run", _run))
