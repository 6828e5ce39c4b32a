"""File -> ``Adapter``: format and architecture found, every tensor accounted for.

    path -> TensorFile -> format (whose keys are these?) -> architecture (whose names and shapes?) -> deltas

Only the header and the alphas are read. ``map_source`` is the one way in; ``load_adapter`` opens a path and
keeps recent results.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NoReturn

from .adapters import ADAPTER_TYPES
from .architectures import ARCHITECTURES, Architecture
from .errors import (
    CorruptFileError,
    UnknownArchitectureError,
    UnknownFormatError,
    UnmappedKeysError,
    WrongBaseError,
)
from .fitting import Fit, Groups, fit, group_keys, names_of
from .formats import FORMATS, Format, Found, NamedRole
from .io import TensorSource, open_tensors, state_of
from .repeats import drop_repeats
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
    grouped: dict[object, Groups] = {}
    candidates: list[_Candidate] = []
    for scheme, split in _split_keys(source):
        if scheme.split not in grouped:
            grouped[scheme.split] = group_keys(source, scheme, split)
        candidates.append(_Candidate(scheme, grouped[scheme.split]))
    rows = [ARCHITECTURES.get(architecture)] if architecture else _rows(prefer)
    best, groups = _best_fit(source, candidates, rows, prefer)
    if not best.deltas or (architecture is None and _made_for_another(best, groups, source)):
        _refuse(source, candidates, best, groups, forced=architecture is not None)
    drop_repeats(best, groups)
    return Adapter(tuple(best.deltas), source.metadata, best.report(source), embeddings=groups.embeddings)


def _rows(prefer: str | None) -> list[Architecture]:
    """The table, and in front of it a model's own family where it is of none in the table."""
    rows = list(ARCHITECTURES)
    own = [ARCHITECTURES.get(prefer)] if prefer and prefer not in ARCHITECTURES.names else []
    return own + rows


def detect_formats(source: TensorSource) -> tuple[Format, ...]:
    """The formats that explain most keys, several where they differ in the modules' names alone.

    Raises:
        CorruptFileError: the file holds no tensor.
        UnknownFormatError: no format explains any key.
    """
    return tuple(scheme for scheme, _ in _split_keys(source))


def _split_keys(source: TensorSource) -> list[tuple[Format, Sequence[Found]]]:
    """The formats of ``detect_formats``, each with what it makes of the keys; formats may share how they split them."""
    if not source:
        raise CorruptFileError(source.label, "holds no tensor")
    once: dict[object, list[Found]] = {}
    for scheme in FORMATS:
        if scheme.split not in once:
            once[scheme.split] = list(map(scheme.split, source))
    split = [(scheme, once[scheme.split]) for scheme in FORMATS]
    counts = {way: [type(found) for found in keys].count(NamedRole) for way, keys in once.items()}
    evidence = [counts[scheme.split] for scheme in FORMATS]
    most = max(evidence)
    if most == 0:
        raise UnknownFormatError(source.label, next(iter(source)), FORMATS.names)
    return [one for one, count in zip(split, evidence, strict=True) if count == most]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A format that may be the file's, with the file's keys as it splits them."""

    scheme: Format
    groups: Groups

    def knows_all(self, row: Architecture, reading: int) -> bool:
        """Whether the family has every name of the file; for most families the first name answers."""
        return all(map(names_of(self.scheme.name, row.name, reading).__contains__, self.groups.modules))

    def hits(self, row: Architecture, reading: int) -> int:
        """Modules of the file whose names this family has: no more than these can fit."""
        names = names_of(self.scheme.name, row.name, reading)
        return sum(map(names.__contains__, self.groups.modules))


def _best_fit(
    source: TensorSource, candidates: Sequence[_Candidate], rows: Sequence[Architecture], prefer: str | None
) -> tuple[Fit, Groups]:
    """Most fitting modules; then the family of which the file has all (``whole_kinds``), the preferred one, the
    claimed one, the order of the tables.

    A family that takes every module, and of which the file has all, cannot be beaten: those behind it are not even
    built. Otherwise shapes are looked at from the most hits on, and no further than a fit can still be better.
    """
    claimed = claimed_architecture(source)
    most = max(len(candidate.groups.modules) for candidate in candidates)
    ways = [
        (candidate, row, reading)
        for candidate in candidates
        for row in rows
        for reading in range(1 + len(candidate.scheme.readings))
    ]
    ways.sort(key=lambda way: (way[1].name != prefer, way[1].name != claimed))  # stable: the tables' order
    best: tuple[Fit, Groups] | None = None
    rest: list[tuple[_Candidate, Architecture, int]] = []
    for candidate, row, reading in ways:
        if len(candidate.groups.modules) < most or not candidate.knows_all(row, reading):
            rest.append((candidate, row, reading))
        elif best is None or _may_be_better(best[0], row, most):
            found = fit(source, candidate.scheme, candidate.groups, row, reading)
            best = _better(best, found, candidate.groups)
            if best[0].fitting == most and _has_all(best[0]):
                return best
    tries = [(candidate, row, reading, candidate.hits(row, reading)) for candidate, row, reading in rest]
    tries.sort(key=lambda one: -one[3])
    for candidate, row, reading, hits in tries:
        if best is None or _may_be_better(best[0], row, hits):
            best = _better(best, fit(source, candidate.scheme, candidate.groups, row, reading), candidate.groups)
    assert best is not None  # the tables are not empty
    return best


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
    metadata says one that is not in the table, a quarter is enough (a tenth would refuse files of a family that is
    known, under a claim that is spelt in a new way).
    """
    total = len(groups.modules)
    missing = sum(name in best.left for name in groups.modules)
    wrong = len(best.misfit)
    stranger = bool(claims(source)) and claimed_architecture(source) is None
    return wrong * 5 > total or missing * 2 > total or (stranger and missing * 4 > total)


def _better(best: tuple[Fit, Groups] | None, found: Fit, groups: Groups) -> tuple[Fit, Groups]:
    """The better of two; the first of equals."""
    if best is None or (found.fitting, whole_kinds(found)) > (best[0].fitting, whole_kinds(best[0])):
        return found, groups
    return best


def _may_be_better(best: Fit, row: Architecture, hits: int) -> bool:
    """Whether a family with so many hits can win: by more modules, or as many and all of their kinds."""
    if hits != best.fitting:
        return hits > best.fitting
    return row.family != best.architecture.family and not _has_all(best)


def whole_kinds(found: Fit) -> int:
    """How many of the file's modules are of kinds of which it has all that the family has.

    A LoRA for FLUX fits HunyuanVideo, which has the same layers and three blocks more: it has all of FLUX's.
    """
    modules = {target.module for target, _ in found.deltas}
    kinds = Counter((component, _kind(path)) for component, path in modules)
    every = _kinds(found.architecture.name)
    return sum(count for kind, count in kinds.items() if every[kind] == count)


def _has_all(found: Fit) -> bool:
    return whole_kinds(found) == len({target.module for target, _ in found.deltas})


@lru_cache(maxsize=64)
def _kinds(architecture: str) -> Counter[tuple[str, str]]:
    """How many modules of each kind a family has."""
    return Counter((key.component, _kind(key.path)) for key, _ in ARCHITECTURES.get(architecture).walk())


@lru_cache(maxsize=1 << 15)  # paths of our tables alone
def _kind(path: str) -> str:
    """``blocks.12.attn.to_q`` -> ``blocks.*.attn.to_q``."""
    return ".".join("*" if part.isdigit() else part for part in path.split("."))


def _refuse(
    source: TensorSource, candidates: Sequence[_Candidate], best: Fit, groups: Groups, forced: bool
) -> NoReturn:
    """Raise the error of a file that is not of this family."""
    total = len(groups.modules)
    if forced:
        made_for, own = _best_fit(source, candidates, list(ARCHITECTURES), None)
        if made_for.deltas and not _made_for_another(made_for, own, source):
            raise WrongBaseError(source.label, made_for.architecture.title, best.architecture.title, 0, total)
    strange = next((key for key in source if best.scheme.split(key) is None), None)
    if strange is not None and not best.deltas and not best.misfit:
        raise UnknownFormatError(source.label, strange, FORMATS.names, f"Known adapter types: {_types()}.")
    why = next(iter(best.left.values()), f"it has {next(iter(groups.modules), next(iter(source)))}")
    titles = [row.title for row in ARCHITECTURES]
    raise UnknownArchitectureError(
        source.label, best.architecture.title, best.fitting, total, why, titles, " and ".join(claims(source))
    )


def _types() -> str:
    return ", ".join(row.title for row in ADAPTER_TYPES)
