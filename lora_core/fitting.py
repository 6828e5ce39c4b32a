"""The tensors of a file, grouped by module and fitted to one architecture.

``group_keys`` needs the format alone; ``fit`` needs an architecture too and is run for each candidate. Every
key ends in exactly one of used, unmatched, ignored and misfit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from .adapters import ADAPTER_TYPES, Delta, Group
from .architectures import ARCHITECTURES, Architecture
from .architectures.spec import sliced_shape
from .errors import ShapeMismatchError
from .formats import FORMATS, Format, Ignored, Located, NamedRole, Names
from .io import TensorRef, TensorSource
from .types import MappingReport, Misfit, ModuleReport, Shape, Target


@lru_cache(maxsize=256)
def _names(scheme: str, architecture: str) -> Names:
    return FORMATS.get(scheme).names(ARCHITECTURES.get(architecture))


@dataclass(slots=True)
class Groups:
    """The keys of a file by module name; what has no module already sorted out."""

    modules: dict[str, dict[str, TensorRef]] = field(default_factory=dict[str, dict[str, TensorRef]])
    ignored: dict[str, str] = field(default_factory=dict[str, str])
    unmatched: dict[str, str] = field(default_factory=dict[str, str])


def group_keys(source: TensorSource, scheme: Format) -> Groups:
    groups = Groups()
    for key, ref in source.items():
        found = scheme.split(key)
        if isinstance(found, Ignored):
            groups.ignored[key] = found.reason
        elif found is None:
            groups.unmatched[key] = f"not a name of the {scheme.title} format"
        else:
            _add(groups, found, ref)
    return groups


def _add(groups: Groups, found: NamedRole, ref: TensorRef) -> None:
    roles = groups.modules.setdefault(found.name, {})
    if found.role in roles:
        groups.unmatched[ref.name] = f"a second {found.role} of one module, besides {roles[found.role].name}"
    else:
        roles[found.role] = ref


@dataclass(slots=True)
class Fit:
    """A file fitted to one architecture."""

    architecture: Architecture
    deltas: list[tuple[Target, Delta]] = field(default_factory=list[tuple[Target, Delta]])
    modules: list[ModuleReport] = field(default_factory=list[ModuleReport])
    used: list[str] = field(default_factory=list[str])
    unmatched: dict[str, str] = field(default_factory=dict[str, str])
    ignored: dict[str, str] = field(default_factory=dict[str, str])
    misfit: list[Misfit] = field(default_factory=list[Misfit])
    left: dict[str, str] = field(default_factory=dict[str, str])

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
            left=self.left,
        )


def fit(source: TensorSource, scheme: Format, groups: Groups, architecture: Architecture) -> Fit:
    """Find the module of each name, check the shapes and build the deltas."""
    names = _names(scheme.name, architecture.name)
    rule = scheme.alpha(source)
    fitted = Fit(architecture, unmatched=dict(groups.unmatched), ignored=dict(groups.ignored))
    for name, roles in groups.modules.items():
        located = names.get(name)
        if located is None:
            reason = f"{architecture.title} has no module {name}"
            fitted.unmatched |= {ref.name: reason for ref in roles.values()}
            fitted.left[name] = reason
            continue
        try:
            alpha = _alpha(source, roles)
            down = roles.get("down")
            if alpha is None and down is not None and down.shape:
                alpha = rule(located, name, down.shape[0])
            _build(source, fitted, name, located, roles, alpha)
        except ShapeMismatchError as error:
            _add_misfit(fitted, roles, error)
            fitted.left[name] = f"{error.key}: expected {error.expected}, got {error.got}"
    return fitted


def _alpha(source: TensorSource, roles: dict[str, TensorRef]) -> float | None:
    """The value of the alpha tensor, where there is one."""
    ref = roles.get("alpha")
    if ref is None:
        return None
    if ref.numel != 1:
        raise ShapeMismatchError(source.label, ref.name, "one number", ref.shape, "The file is damaged.")
    return ref.item()


def _build(
    source: TensorSource,
    fitted: Fit,
    name: str,
    located: Located,
    roles: dict[str, TensorRef],
    alpha: float | None,
) -> None:
    """Turn the tensors of one module into deltas: the type that takes most of them, then the rest again."""
    shapes = _shapes(fitted.architecture, located)
    rest = {role: ref for role, ref in roles.items() if role != "alpha"}
    # All or nothing: a module with one misfit adds none of its deltas.
    built: list[tuple[Target, Delta]] = []
    used: list[str] = []
    while rest:
        takes = {row.name: row.takes(frozenset(rest)) for row in ADAPTER_TYPES}
        best = max(takes, key=lambda row: len(takes[row]))
        if not takes[best]:
            break
        group = Group(source.label, name, {role: rest[role] for role in takes[best]}, shapes, alpha)
        for parameter, delta in ADAPTER_TYPES.get(best).build(group).items():
            built.append((Target(located.module, parameter, located.slice), delta))
        used += [rest.pop(role).name for role in takes[best]]
    if not built:
        fitted.left[name] = "no adapter type that is known takes its tensors"
    fitted.deltas += built
    fitted.modules += [ModuleReport(name, target, delta.type, delta.rank, alpha) for target, delta in built]
    fitted.used += used
    for role, ref in rest.items():
        reason = f"incomplete: {_missing(role)} of this module is not in the file, so it changes nothing"
        fitted.ignored[ref.name] = reason
    if "alpha" in roles:
        key = roles["alpha"].name
        if built:
            fitted.used.append(key)
        elif rest:
            fitted.ignored[key] = "the alpha of an incomplete module"
        else:
            fitted.unmatched[key] = "an alpha whose factors are of an adapter type that is not known"


def _missing(role: str) -> str:
    return {"down": "the up factor", "up": "the down factor"}.get(role, "the rest")


def _shapes(architecture: Architecture, located: Located) -> dict[str, Shape]:
    module = architecture.module(located.module)
    assert module is not None  # names() lists the architecture's own modules
    if located.slice is None:
        return dict(module.shapes)
    return {parameter: sliced_shape(shape, located.slice) for parameter, shape in module.shapes.items()}


def _add_misfit(fitted: Fit, roles: dict[str, TensorRef], error: ShapeMismatchError) -> None:
    for ref in roles.values():
        if ref.name == error.key:
            fitted.misfit.append(Misfit(ref.name, error.expected, ref.shape))
        else:
            fitted.ignored[ref.name] = f"belongs to {error.key}, whose shape does not fit"
