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
from .io import TensorFile, TensorSource
from .stack import Adapter
from .types import MappingReport

# Values of modelspec.architecture end in /lora, or by the letter of the specification in -lora.
_MODELSPEC_KEYS = ("modelspec.architecture", "model_spec.architecture")


def load_adapter(
    path: str | os.PathLike[str], architecture: str | None = None, prefer: str | None = None, strict: bool = False
) -> Adapter:
    """Read a LoRA file.

    Args:
        path: a safetensors file.
        architecture: name in ``ARCHITECTURES`` to map onto; found from names and shapes when None.
        prefer: architecture that wins where several fit equally well, the model's own.
        strict: raise when a tensor is left over without a reason.

    Raises:
        FileNotFoundError, CorruptFileError: the file cannot be read.
        UnknownFormatError, UnknownArchitectureError: its keys fit nothing known.
        WrongBaseError: ``architecture`` is given and none of the modules fit it.
        UnmappedKeysError: ``strict`` and something is left over.
    """
    state = os.stat(path)
    adapter = _load(os.path.realpath(path), state.st_mtime_ns, state.st_size, architecture, prefer)
    if strict:
        require_complete(adapter.report)
    return adapter


@lru_cache(maxsize=128)
def _load(path: str, mtime: int, size: int, architecture: str | None, prefer: str | None) -> Adapter:
    adapter = map_source(TensorFile(path), architecture, prefer)
    return replace(adapter, digest=f"{path}|{mtime}|{size}|{adapter.architecture}")


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
    if not best.deltas:
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


def claimed_architecture(source: TensorSource) -> str | None:
    """The architecture that the metadata claims; it may lie, so it only decides between equal fits."""
    version = source.metadata.get("ss_base_model_version", "")
    spec = next((source.metadata[key] for key in _MODELSPEC_KEYS if key in source.metadata), "")
    spec = spec.removesuffix("/lora").removesuffix("-lora")
    for row in ARCHITECTURES:
        if version in row.base_versions or spec in row.modelspec:
            return row.name
    return None


def _choose(fits: Sequence[Fit], source: TensorSource, prefer: str | None) -> Fit:
    """Most fitting modules; then the preferred architecture, the claimed one, the table's order."""
    claimed = claimed_architecture(source)

    def rank(candidate: Fit) -> tuple[int, bool, bool]:
        name = candidate.architecture.name
        return len(candidate.deltas), name == prefer, name == claimed

    return max(fits, key=rank)


def _refuse(source: TensorSource, scheme: Format, groups: Groups, best: Fit, forced: bool) -> NoReturn:
    """Raise the error of a file of which no module fits."""
    if forced:
        fitting = (row.title for row in ARCHITECTURES if fit(source, scheme, groups, row).deltas)
        made_for = next(fitting, None)
        if made_for:
            raise WrongBaseError(source.label, made_for, best.architecture.title, 0, len(groups.modules))
    strange = next((key for key in source if scheme.split(key) is None), None)
    if strange is not None:
        raise UnknownFormatError(source.label, strange, FORMATS.names, f"Known adapter types: {_types()}.")
    claims = (source.metadata[key] for key in (*_MODELSPEC_KEYS, "ss_base_model_version") if key in source.metadata)
    titles = [row.title for row in ARCHITECTURES]
    raise UnknownArchitectureError(source.label, next(iter(groups.modules)), titles, next(claims, ""))


def _types() -> str:
    return ", ".join(row.title for row in ADAPTER_TYPES)
