"""The tensors of a file, grouped by module and fitted to one architecture.

``group_keys`` needs the format alone; ``fit`` needs an architecture too and is run for each candidate. Every
key ends in exactly one of used, unmatched, ignored and misfit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from .adapters import ADAPTER_TYPES, AdapterType, Delta, Group
from .architectures import ARCHITECTURES, Architecture
from .architectures.spec import sliced_shape
from .errors import ShapeMismatchError
from .formats import FORMATS, Embedded, Format, Found, Ignored, Located, NamedRole, Names
from .io import TensorRef, TensorSource
from .types import MappingReport, Misfit, ModuleReport, Shape, Slice, Target


@lru_cache(maxsize=512)
def names_of(scheme: str, architecture: str, reading: int = 0) -> Names:
    """The table of module names of a format for an architecture."""
    row = FORMATS.get(scheme)
    return (row.names, *row.readings)[reading](ARCHITECTURES.get(architecture))


@dataclass(slots=True)
class Groups:
    """The keys of a file by module name; what has no module already sorted out."""

    modules: dict[str, dict[str, TensorRef]] = field(default_factory=dict[str, dict[str, TensorRef]])
    embeddings: dict[str, dict[str, TensorRef]] = field(default_factory=dict[str, dict[str, TensorRef]])
    ignored: dict[str, str] = field(default_factory=dict[str, str])
    unmatched: dict[str, str] = field(default_factory=dict[str, str])


def group_keys(source: TensorSource, scheme: Format, split: Iterable[Found] | None = None) -> Groups:
    """Sort the keys; ``split`` is what the format makes of each, where that is known already."""
    groups = Groups()
    known = scheme.embeddings(source)
    for (key, ref), found in zip(source.items(), split or map(scheme.split, source), strict=True):
        found = known.get(key) or found
        if isinstance(found, Ignored):
            groups.ignored[key] = found.reason
        elif isinstance(found, NamedRole):
            _add(groups, groups.modules.setdefault(found.name, {}), found.role, ref)
        elif isinstance(found, Embedded):
            _add(groups, groups.embeddings.setdefault(found.token, {}), found.encoder, ref)
        else:
            groups.unmatched[key] = f"not a name of the {scheme.title} format"
    return groups


def _add(groups: Groups, roles: dict[str, TensorRef], role: str, ref: TensorRef) -> None:
    if role in roles:
        groups.unmatched[ref.name] = f"a second {role} of one module, besides {roles[role].name}"
    else:
        roles[role] = ref


@dataclass(slots=True)
class Fit:
    """A file fitted to one architecture."""

    scheme: Format
    architecture: Architecture
    deltas: list[tuple[Target, Delta]] = field(default_factory=list[tuple[Target, Delta]])
    modules: list[ModuleReport] = field(default_factory=list[ModuleReport])
    used: list[str] = field(default_factory=list[str])
    unmatched: dict[str, str] = field(default_factory=dict[str, str])
    ignored: dict[str, str] = field(default_factory=dict[str, str])
    misfit: list[Misfit] = field(default_factory=list[Misfit])
    left: dict[str, str] = field(default_factory=dict[str, str])
    fitting: int = 0

    def report(self, source: TensorSource) -> MappingReport:
        return MappingReport(
            file=source.label,
            format=self.scheme.name,
            architecture=self.architecture.name,
            used=tuple(self.used),
            unmatched=self.unmatched,
            ignored=self.ignored,
            misfit=tuple(self.misfit),
            modules=tuple(self.modules),
            left=self.left,
        )


def fit(source: TensorSource, scheme: Format, groups: Groups, architecture: Architecture, reading: int = 0) -> Fit:
    """Find the module of each name, check the shapes and build the deltas."""
    names = names_of(scheme.name, architecture.name, reading)
    rule, settings = scheme.scale(source), scheme.settings(source)
    fitted = Fit(scheme, architecture, unmatched=dict(groups.unmatched), ignored=dict(groups.ignored))
    for name, roles in groups.modules.items():
        located = names.get(name)
        if located is None:
            reason = f"{architecture.title} has no module {name}"
            fitted.unmatched |= {ref.name: reason for ref in roles.values()}
            fitted.left[name] = reason
            continue
        shapes = _shapes(architecture, located)
        tensors = straightened({role: ref for role, ref in roles.items() if role != "alpha"}, shapes)
        try:
            alpha = _alpha(source, roles)
            scale = None if alpha is not None else rule(located, name, _rank(tensors))
            group = Group(source.label, name, tensors, shapes, alpha, scale, settings)
            _build(source, fitted, located, group, roles.get("alpha"))
        except ShapeMismatchError as error:
            _add_misfit(fitted, roles, error)
            fitted.left[name] = f"{error.key}: expected {error.expected}, got {error.got}"
    fitted.fitting = len(groups.modules) - len(fitted.left)
    for encoders in groups.embeddings.values():
        fitted.used += [ref.name for ref in encoders.values()]
    return fitted


def _alpha(source: TensorSource, roles: Mapping[str, TensorRef]) -> float | None:
    """The value of the alpha tensor, where there is one."""
    ref = roles.get("alpha")
    if ref is None:
        return None
    if ref.numel != 1:
        raise ShapeMismatchError(source.label, ref.name, "one number", ref.shape, "The file is damaged.")
    return ref.item()


def _rank(tensors: Mapping[str, TensorRef]) -> int | None:
    """The rank that the factors' shapes show; None where they show none."""
    for role in ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if role in tensors and tensors[role].shape:
            return tensors[role].shape[0]
    return None


def straightened(tensors: dict[str, TensorRef], shapes: Mapping[str, Shape]) -> dict[str, TensorRef]:
    """Down and up the right way round: some files of OneTrainer have (out, rank) called down and (rank, in) called up.

    Only where the shapes leave no other reading.
    """
    down, up, weight = tensors.get("down"), tensors.get("up"), shapes.get("weight", ())
    if down is None or up is None or len(weight) != 2 or len(down.shape) != 2 or len(up.shape) != 2:
        return tensors
    rank = down.shape[1]
    swapped = (down.shape, up.shape) == ((weight[0], rank), (rank, weight[1]))
    straight = up.shape[0] == weight[0] and down.shape[1] == weight[1]
    return {**tensors, "down": up, "up": down} if swapped and not straight else tensors


def _build(source: TensorSource, fitted: Fit, located: Located, group: Group, alpha: TensorRef | None) -> None:
    """Turn the tensors of one module into deltas: the type that takes most of them, then the rest again."""
    rest = dict(group.roles)
    # All or nothing: a module with one misfit adds none of its deltas.
    built: list[tuple[Target, Delta]] = []
    used: list[str] = []
    while rest:
        kind, taken = _type_of(frozenset(rest))
        if not taken:
            break
        part = group if len(taken) == len(group.roles) else group._replace(roles={role: rest[role] for role in taken})
        for parameter, delta in kind.build(part).items():
            built += _spread(part, located, parameter, delta, fitted.architecture)
        used += [rest.pop(role).name for role in taken]
    if not built:
        fitted.left[group.name] = "no adapter type that is known takes its tensors"
    fitted.deltas += built
    stated = group.alpha
    for target, delta in built:
        shown = stated if stated is not None or group.scale is None or not delta.rank else group.scale * delta.rank
        fitted.modules.append(ModuleReport(group.name, target, delta.type, delta.rank, shown))
    fitted.used += used
    for role, ref in rest.items():
        reason = f"incomplete: {_missing(role)} of this module is not in the file, so it changes nothing"
        fitted.ignored[ref.name] = reason
    if alpha is not None:
        if built:
            fitted.used.append(alpha.name)
        elif rest:
            fitted.ignored[alpha.name] = "the alpha of an incomplete module"
        else:
            fitted.unmatched[alpha.name] = "an alpha whose factors are of an adapter type that is not known"


@lru_cache(maxsize=1024)  # a file has few different sets of roles
def _type_of(roles: frozenset[str]) -> tuple[AdapterType, frozenset[str]]:
    """The type that takes most of these roles, and which it takes."""
    takes = [(row, row.takes(roles)) for row in ADAPTER_TYPES]
    return max(takes, key=lambda taking: len(taking[1]))  # the first of equals: the table's order


def _spread(
    group: Group, located: Located, parameter: str, delta: Delta, architecture: Architecture
) -> list[tuple[Target, Delta]]:
    """The delta where it belongs: on one module, or row by row on several."""
    if not located.more:
        return [(Target(located.module, parameter, _slice_of(parameter, located)), delta)]
    found: list[tuple[Target, Delta]] = []
    start = 0
    for part in located.parts:
        length = _shapes(architecture, part)[parameter][0]
        rows = delta.rows(start, length)
        if rows is None:
            role = next(iter(group.roles))
            raise group.misfit(role, f"a type whose rows can go to {len(located.parts)} places, found {delta.type}")
        found.append((Target(part.module, parameter, _slice_of(parameter, part)), rows))
        start += length
    return found


def _slice_of(parameter: str, located: Located) -> Slice | None:
    """Rows of a weight are rows of its bias too; columns are not."""
    if located.slice is None or parameter == "weight" or located.slice.dim == 0:
        return located.slice
    return None


def _missing(role: str) -> str:
    return {"down": "the up factor", "up": "the down factor"}.get(role, "the rest")


def _shapes(architecture: Architecture, located: Located) -> dict[str, Shape]:
    """Parameter -> shape of what the name means: a module, rows of one, or several one below the other."""
    parts = [_part_shapes(architecture, part) for part in located.parts]
    if len(parts) == 1:
        return parts[0]
    shared = [name for name in parts[0] if all(name in part and part[name] for part in parts)]
    return {name: (sum(part[name][0] for part in parts), *parts[0][name][1:]) for name in shared}


def _part_shapes(architecture: Architecture, located: Located) -> dict[str, Shape]:
    module = architecture.module(located.module)
    assert module is not None  # names() lists the architecture's own modules
    if located.slice is None:
        return dict(module.shapes)
    shapes = module.shapes.items()
    return {name: sliced_shape(shape, part) if (part := _slice_of(name, located)) else shape for name, shape in shapes}


def _add_misfit(fitted: Fit, roles: Mapping[str, TensorRef], error: ShapeMismatchError) -> None:
    for ref in roles.values():
        if ref.name == error.key:
            fitted.misfit.append(Misfit(ref.name, error.expected, ref.shape))
        else:
            fitted.ignored[ref.name] = f"belongs to {error.key}, whose shape does not fit"
