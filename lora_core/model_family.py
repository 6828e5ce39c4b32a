"""Which family a model's file is of, from its header alone, and whether a LoRA fits it. Nothing of it is loaded.

A LoRA is checked against the parameters that the file has; text encoders that are in other files (a denoiser alone,
as in ComfyUI's ``diffusion_models``) count as the family's own ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .architectures import ARCHITECTURES, Architecture
from .binding import BindReport, bind
from .errors import CorruptFileError, LoomError, UnknownCheckpointError, WrongBaseError
from .inspect import misfit_json
from .merge import Checkpoint, open_checkpoint
from .stack import Adapter, Stack, StackEntry
from .types import DENOISER, ModuleKey, Shape, Target

# What has a header that can be read by itself.
READABLE = (".safetensors", ".sft")


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """What is known of a model from its header.

    Args:
        architecture: its family.
        differs: parameters that the file has in another shape than the family; None for those that it has not.
    """

    architecture: Architecture
    differs: Mapping[Target, Shape | None]

    def shape_of(self, target: Target) -> Shape | None:
        """Shape of a whole parameter, None where there is none."""
        return self.differs[target] if target in self.differs else self.architecture.shape(target)


@dataclass(frozen=True, slots=True)
class ModelFit:
    """How much of a LoRA a model takes.

    Args:
        matched: modules of the file that fit.
        total: modules in the file.
        reason: one line; "" where all of them fit.
    """

    matched: int
    total: int
    reason: str = ""


def model_family(path: str | os.PathLike[str]) -> ModelFamily:
    """The family of a checkpoint, or of the folder of a diffusers pipeline; kept as long as its files are the same.

    Raises:
        FileNotFoundError, CorruptFileError: it cannot be read; also for files other than safetensors.
        UnknownCheckpointError: it is of no family in ``ARCHITECTURES``.
    """
    place = Path(path)
    found = _family(os.path.realpath(place), model_state(place))
    if isinstance(found, LoomError):
        raise found.with_traceback(None)
    return found


def model_state(path: str | os.PathLike[str]) -> str:
    """Changes with the file, or with the files of a folder."""
    place = Path(path)
    files = sorted(place.glob("*/*.safetensors")) if place.is_dir() else [place]
    return "|".join(f"{state.st_mtime_ns}:{state.st_size}" for state in (file.stat() for file in files))


@lru_cache(maxsize=64)
def _family(path: str, state: str) -> ModelFamily | LoomError:
    """Errors are kept too: a model of no known family costs the most to look at."""
    place = Path(path)
    if not place.is_dir() and not path.lower().endswith(READABLE):
        hint = "Models in safetensors are looked at; load it to see what fits."
        return CorruptFileError(place.name, f"what is in a {place.suffix or 'bare'} file is not known beforehand", hint)
    try:
        checkpoint = open_checkpoint(place)
    except LoomError as error:
        return error
    if DENOISER not in checkpoint.components:
        # Families share text encoders: alone they do not say which model is beside them.
        known = [row.title for row in ARCHITECTURES]
        return UnknownCheckpointError(checkpoint.label, next(iter(checkpoint.tensors)), known)
    return ModelFamily(checkpoint.architecture, dict(_differing(checkpoint)))


def _differing(checkpoint: Checkpoint) -> Iterator[tuple[Target, Shape | None]]:
    present = checkpoint.components
    for component in checkpoint.architecture.components:
        if component.name not in present:
            continue
        for module in component.modules.values():
            for parameter, shape in module.shapes.items():
                target = Target(ModuleKey(component.name, module.path), parameter)
                if (there := checkpoint.shape_of(target)) != shape:
                    yield target, there


def model_fit(adapter: Adapter, model: ModelFamily) -> ModelFit:
    """How much of a LoRA fits a model; the same rules as when it is applied (``binding``)."""
    every = {component.name for component in model.architecture.components}
    stack = Stack((StackEntry(adapter),))
    try:
        (report,) = bind(stack, model.shape_of, model.architecture, every).reports
    except WrongBaseError as error:
        return ModelFit(error.fitting, error.total, f"made for {error.made_for}; the model is {error.model}")
    if report.fitting == report.total:
        return ModelFit(report.fitting, report.total)
    reason = why_not(report) or _absent(report, adapter, model.architecture)
    return ModelFit(report.fitting, report.total, f"{report.fitting} of {report.total} modules fit: {reason}")


def why_not(report: BindReport) -> str:
    """Why the first of the modules that a model does not take is left out; "" where it takes all that concerns it."""
    for module, reason in report.missing.items():
        return reason if module in reason else f"{module}: {reason}"
    for misfit in map(misfit_json, report.misfits):
        return f"{misfit['key']} has the shape {misfit['got']} in the file and {misfit['expected']} in the model"
    return ""


def _absent(report: BindReport, adapter: Adapter, architecture: Architecture) -> str:
    names = ", ".join(report.absent)
    made_for = ARCHITECTURES.get(adapter.architecture).title
    return f"made for {made_for}; {architecture.title} has no {names}"
