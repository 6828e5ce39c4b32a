"""File -> ``Adapter``: format and architecture found, every tensor accounted for.

    path -> TensorFile -> format (whose keys are these?) -> architecture (whose names and shapes?) -> deltas

Only the header and the alphas are read. ``map_source`` is the one way in; ``load_adapter`` opens a path and
keeps recent results.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NoReturn

from .adapters import ADAPTER_TYPES
from .architectures import ARCHITECTURES
from .errors import (
    CorruptFileError,
    UnknownArchitectureError,
    UnknownFormatError,
    UnmappedKeysError,
    WrongBaseError,
)
from .fitting import Fit, Groups, fit, group_keys
from .formats import FORMATS, Format
from .io import TensorSource, open_tensors, state_of
from .stack import Adapter
from .types import MappingReport

# Values of modelspec.architecture end in /lora, or by the letter of the specification in -lora.
_CLAIM_KEYS = ("modelspec.architecture", "model_spec.architecture", "ss_base_model_version")


def load_adapter(
    path: str | os.PathLike[str], architecture: str | None = None, prefer: str | None = None, strict: bool = False
) -> Adapter:
    """Read a LoRA file.

    Args:
        path: a safetensors file, a pickle of tensors, or the folder of one (PEFT's, diffusers').
        architecture: name in ``ARCHITECTURES`` to map onto; found from names and shapes when None.
        prefer: architecture that wins where several fit equally well, the model's own.
        strict: raise when a tensor is left over without a reason.

    Raises:
        FileNotFoundError, CorruptFileError: the file cannot be read.
        UnknownFormatError, UnknownArchitectureError: its keys fit nothing known.
        WrongBaseError: ``architecture`` is given and none of the modules fit it.
        UnmappedKeysError: ``strict`` and something is left over.
    """
    adapter = _load(os.path.realpath(path), state_of(path), architecture, prefer)
    if strict:
        require_complete(adapter.report)
    return adapter


@lru_cache(maxsize=128)
def _load(path: str, state: str, architecture: str | None, prefer: str | None) -> Adapter:
    adapter = map_source(open_tensors(path), architecture, prefer)
    return replace(adapter, digest=f"{path}|{state}|{adapter.architecture}")


def require_complete(report: MappingReport) -> None:
    """Raise ``UnmappedKeysError`` when the report has unmatched or misfitting tensors."""
    if report.complete:
        return
    keys = [*report.unmatched, *(misfit.key for misfit in report.misfit)]
    title = ARCHITECTURES.get(report.architecture).title
    first = report.misfit[0] if not report.unmatched else None
    reason = (
        f"{first.key} has shape {list(first.got)}, {title} takes {first.expected}"
        if first
        else next(iter(report.unmatched.values()))
    )
    raise UnmappedKeysError(report.file, keys, report.total, reason)


def map_source(source: TensorSource, architecture: str | None = None, prefer: str | None = None) -> Adapter:
    """Map the tensors of an open file (or of a dict of tensors) onto a model family.

    Arguments and errors as ``load_adapter``.
    """
    scheme = detect_format(source)
    groups = group_keys(source, scheme)
    candidates = [ARCHITECTURES.get(architecture)] if architecture else list(ARCHITECTURES)
    fits = [fit(source, scheme, groups, candidate) for candidate in candidates]
    best = _choose(fits, source, prefer)
    if not best.deltas or (architecture is None and _made_for_another(best, groups, source)):
        _refuse(source, scheme, groups, best, forced=architecture is not None)
    return Adapter(tuple(best.deltas), source.metadata, best.report(source, scheme))


def detect_format(source: TensorSource) -> Format:
    """The format that explains most keys; ``UnknownFormatError`` where none explains any."""
    if not source:
        raise CorruptFileError(source.label, "holds no tensor")
    evidence = {scheme.name: scheme.recognise(source) for scheme in FORMATS}
    name = max(evidence, key=lambda name: evidence[name])  # the first of equals: the table's order
    if evidence[name] == 0:
        raise UnknownFormatError(source.label, next(iter(source)), FORMATS.names)
    return FORMATS.get(name)


def claims(source: TensorSource) -> tuple[str, ...]:
    """What the metadata says the file was made for, in the words of its writer."""
    return tuple(text for key in _CLAIM_KEYS if (text := source.metadata.get(key, "")))


def claimed_architecture(source: TensorSource) -> str | None:
    """The architecture that the metadata claims; it may lie, so it only decides between equal fits."""
    said = {text.removesuffix("/lora").removesuffix("-lora") for text in claims(source)}
    return next((row.name for row in ARCHITECTURES if said & {*row.base_versions, *row.modelspec}), None)


def _made_for_another(best: Fit, groups: Groups, source: TensorSource) -> bool:
    """Whether even the nearest family is not the file's.

    Families share names, and whole text encoders, so some of a file often fits. Its own family takes nearly all
    of it: where a fifth of the modules has other shapes, or less than half fits, it is another's; where the
    metadata says one that is not in the table, a tenth is enough.
    """
    total = len(groups.modules)
    missing = sum(name in best.left for name in groups.modules)
    wrong = len(best.misfit)
    stranger = bool(claims(source)) and claimed_architecture(source) is None
    return wrong * 5 > total or missing * 2 > total or (stranger and missing * 10 > total)


def _choose(fits: Sequence[Fit], source: TensorSource, prefer: str | None) -> Fit:
    """Most fitting modules; then the preferred architecture, the claimed one, the table's order."""
    claimed = claimed_architecture(source)

    def rank(candidate: Fit) -> tuple[int, bool, bool]:
        name = candidate.architecture.name
        return len(candidate.deltas), name == prefer, name == claimed

    return max(fits, key=rank)


def _refuse(source: TensorSource, scheme: Format, groups: Groups, best: Fit, forced: bool) -> NoReturn:
    """Raise the error of a file that is not of this family."""
    if forced:
        fitting = (row.title for row in ARCHITECTURES if fit(source, scheme, groups, row).deltas)
        if made_for := next(fitting, None):
            raise WrongBaseError(source.label, made_for, best.architecture.title, 0, len(groups.modules))
    strange = next((key for key in source if scheme.split(key) is None), None)
    if strange is not None and not best.deltas and not best.misfit:
        raise UnknownFormatError(source.label, strange, FORMATS.names, f"Known adapter types: {_types()}.")
    total = len(groups.modules)
    why = next(iter(best.left.values()), f"it has {next(iter(groups.modules))}")
    titles = [row.title for row in ARCHITECTURES]
    fitting = sum(name not in best.left for name in groups.modules)
    raise UnknownArchitectureError(
        source.label, best.architecture.title, fitting, total, why, titles, " and ".join(claims(source))
    )


def _types() -> str:
    return ", ".join(row.title for row in ADAPTER_TYPES)
