"""File -> ``Adapter``: format and architecture found, every tensor accounted for.

    path -> TensorFile -> format (whose keys are these?) -> architecture (whose names and shapes?) -> deltas

Only the header and the alphas are read. ``map_source`` is the one way in; ``load_adapter`` opens a path and
keeps recent results.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from .adapters import ADAPTER_TYPES, Delta, Group
from .architectures import ARCHITECTURES, Architecture
from .architectures.spec import sliced_shape
from .errors import (
    CorruptFileError,
    ShapeMismatchError,
    UnknownArchitectureError,
    UnknownFormatError,
    UnmappedKeysError,
    WrongBaseError,
)
from .formats import FORMATS, Format, Ignored, Located, NamedRole, Names
from .io import TensorFile, TensorRef, TensorSource
from .stack import Adapter
from .types import MappingReport, Misfit, ModuleReport, Shape, Target

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
        f"{first.key} has shape {list(first.got)}, {title} takes {list(first.expected)}"
        if first
        else next(iter(report.unmatched.values()))
    )
    raise UnmappedKeysError(report.file, keys, report.total, reason)


def map_source(source: TensorSource, architecture: str | None = None, prefer: str | None = None) -> Adapter:
    """Map the tensors of an open file (or of a dict of tensors) onto a model family.

    Arguments and errors as ``load_adapter``.
    """
    scheme = detect_format(source)
    groups = _group(source, scheme)
    candidates = [ARCHITECTURES.get(architecture)] if architecture else list(ARCHITECTURES)
    mapped = [_map(source, scheme, groups, candidate) for candidate in candidates]
    best = _choose(mapped, source, prefer)
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


@lru_cache(maxsize=256)
def _names(scheme: str, architecture: str) -> Names:
    return FORMATS.get(scheme).names(ARCHITECTURES.get(architecture))


@dataclass(slots=True)
class _Groups:
    """The keys of a file by module name; what has no module already sorted out."""

    modules: dict[str, dict[str, TensorRef]] = field(default_factory=dict[str, dict[str, TensorRef]])
    ignored: dict[str, str] = field(default_factory=dict[str, str])
    unmatched: dict[str, str] = field(default_factory=dict[str, str])


def _group(source: TensorSource, scheme: Format) -> _Groups:
    groups = _Groups()
    for key, ref in source.items():
        found = scheme.split(key)
        if isinstance(found, Ignored):
            groups.ignored[key] = found.reason
        elif found is None:
            groups.unmatched[key] = f"not a name of the {scheme.title} format"
        else:
            _add(groups, found, ref)
    return groups


def _add(groups: _Groups, found: NamedRole, ref: TensorRef) -> None:
    roles = groups.modules.setdefault(found.name, {})
    if found.role in roles:
        groups.unmatched[ref.name] = f"a second {found.role} of one module, besides {roles[found.role].name}"
    else:
        roles[found.role] = ref


@dataclass(slots=True)
class _Mapped:
    """A file mapped onto one architecture."""

    architecture: Architecture
    deltas: list[tuple[Target, Delta]] = field(default_factory=list[tuple[Target, Delta]])
    modules: list[ModuleReport] = field(default_factory=list[ModuleReport])
    used: list[str] = field(default_factory=list[str])
    unmatched: dict[str, str] = field(default_factory=dict[str, str])
    ignored: dict[str, str] = field(default_factory=dict[str, str])
    misfit: list[Misfit] = field(default_factory=list[Misfit])

    def report(self, source: TensorSource, scheme: Format) -> MappingReport:
        return MappingReport(
            file=source.label,
            format=scheme.name,
            architecture=self.architecture.name,
            used=tuple(self.used),
            unmatched=self.unmatched,
            ignored=self.ignored,
            misfit=tuple(self.misfit),
            modules=tuple(self.modules),
        )


def _map(source: TensorSource, scheme: Format, groups: _Groups, architecture: Architecture) -> _Mapped:
    names = _names(scheme.name, architecture.name)
    rule = scheme.alpha(source)
    mapped = _Mapped(architecture, unmatched=dict(groups.unmatched), ignored=dict(groups.ignored))
    for name, roles in groups.modules.items():
        located = names.get(name)
        if located is None:
            mapped.unmatched |= {ref.name: f"{architecture.title} has no module {name}" for ref in roles.values()}
            continue
        try:
            alpha = _alpha(source, roles, lambda rank, at=located, name=name: rule(at, name, rank))
            _build(source, mapped, name, located, roles, alpha)
        except ShapeMismatchError as error:
            _add_misfit(mapped, roles, error)
    return mapped


def _alpha(source: TensorSource, roles: dict[str, TensorRef], rule: object) -> float | None:
    """The alpha tensor's value, or what the format's rule says."""
    ref = roles.get("alpha")
    if ref is not None:
        if ref.numel != 1:
            raise ShapeMismatchError(source.label, ref.name, "one number", ref.shape, "The file is damaged.")
        return ref.item()
    down = roles.get("down")
    return rule(down.shape[0]) if down is not None and down.shape and callable(rule) else None


def _build(
    source: TensorSource,
    mapped: _Mapped,
    name: str,
    located: Located,
    roles: dict[str, TensorRef],
    alpha: float | None,
) -> None:
    """Turn the tensors of one module into deltas: the type that takes most of them, then the rest again."""
    rest = {role: ref for role, ref in roles.items() if role != "alpha"}
    built = False
    while rest:
        takes = {row.name: row.takes(frozenset(rest)) for row in ADAPTER_TYPES}
        best = max(takes, key=lambda row: len(takes[row]))
        if not takes[best]:
            break
        group = Group(source.label, name, {role: rest[role] for role in takes[best]}, _shapes(mapped, located), alpha)
        for parameter, delta in ADAPTER_TYPES.get(best).build(group).items():
            target = Target(located.module, parameter, located.slice)
            mapped.deltas.append((target, delta))
            mapped.modules.append(ModuleReport(name, target, delta.type, delta.rank, alpha))
        mapped.used += [rest.pop(role).name for role in takes[best]]
        built = True
    for role, ref in rest.items():
        mapped.ignored[ref.name] = f"incomplete: {_missing(role)} of this module is not in the file, so it changes nothing"
    if "alpha" in roles:
        if built:
            mapped.used.append(roles["alpha"].name)
        else:
            mapped.ignored[roles["alpha"].name] = "an alpha without factors changes nothing"


def _missing(role: str) -> str:
    return {"down": "the up factor", "up": "the down factor"}.get(role, "the rest")


def _shapes(mapped: _Mapped, located: Located) -> dict[str, Shape]:
    module = mapped.architecture.module(located.module)
    assert module is not None  # names() lists the architecture's own modules
    if located.slice is None:
        return dict(module.shapes)
    return {parameter: sliced_shape(shape, located.slice) for parameter, shape in module.shapes.items()}


def _add_misfit(mapped: _Mapped, roles: dict[str, TensorRef], error: ShapeMismatchError) -> None:
    for ref in roles.values():
        if ref.name == error.key:
            expected = error.expected if isinstance(error.expected, tuple) else (error.expected,)
            mapped.misfit.append(Misfit(ref.name, expected, ref.shape))
        else:
            mapped.ignored[ref.name] = f"belongs to {error.key}, whose shape does not fit"


def _choose(mapped: Sequence[_Mapped], source: TensorSource, prefer: str | None) -> _Mapped:
    """Most fitting modules; then the preferred architecture, the claimed one, the table's order."""
    claimed = claimed_architecture(source)

    def rank(candidate: _Mapped) -> tuple[int, bool, bool]:
        name = candidate.architecture.name
        return len(candidate.deltas), name == prefer, name == claimed

    return max(mapped, key=rank)


def _refuse(source: TensorSource, scheme: Format, groups: _Groups, best: _Mapped, forced: bool) -> None:
    """Raise the error of a file of which no module fits."""
    example = next(iter(groups.modules))
    if forced:
        made_for = next((row.title for row in ARCHITECTURES if _map(source, scheme, groups, row).deltas), None)
        if made_for:
            title = best.architecture.title
            raise WrongBaseError(source.label, made_for, title, 0, len(groups.modules))
    says = next((source.metadata[key] for key in (*_MODELSPEC_KEYS, "ss_base_model_version") if key in source.metadata), "")
    raise UnknownArchitectureError(source.label, example, [row.title for row in ARCHITECTURES], says)
