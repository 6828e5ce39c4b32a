"""Stack -> {parameter: ``Patch``} for the model at hand, and how much of each adapter it takes.

A patch names the deltas of one whole parameter, in the order of the stack, each with its strength: of the
component times the factor of the block. ``patching`` computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from .adapters import Delta
from .architectures import ARCHITECTURES, Architecture
from .architectures.spec import sliced_shape
from .errors import WrongBaseError
from .stack import Stack, StackEntry
from .types import Misfit, ModuleKey, Shape, Slice, Target

ShapeOf = Callable[[Target], "Shape | None"]


@dataclass(frozen=True, slots=True)
class PatchPart:
    """One delta of a patch.

    Args:
        delta: what the file says.
        strength: of the component times the factor of the block; never 0.
        slice: the part of the parameter that it changes, None for all of it.
        file: for messages.
    """

    delta: Delta
    strength: float
    slice: Slice | None
    file: str


@dataclass(frozen=True, slots=True)
class Patch:
    """All that a stack does to one parameter.

    Args:
        target: the whole parameter, without a slice.
        shape: of the parameter in the model.
        parts: in the order of the stack.
    """

    target: Target
    shape: Shape
    parts: tuple[PatchPart, ...]

    @property
    def result(self) -> Shape:
        """Shape of the patched parameter: the same, but where a delta gives a layer more inputs."""
        shape = self.shape
        for part in self.parts:
            shape = part.delta.shape_after(shape)
        return shape


@dataclass(frozen=True, slots=True)
class BindReport:
    """How much of one adapter the model takes; q, k and v of a fused matrix are three modules, as in the file.

    Args:
        file: name to show.
        fitting: modules that the model takes.
        total: modules in the file; ``total - fitting`` are in ``missing``, ``misfits`` and ``absent``.
        missing: modules that the model does not have -> reason: ``component.path``, or the name in the file
            where the model's whole family has no such module.
        misfits: parameters that have another shape in this model; ``expected`` is the model's.
        absent: component of which the model given has nothing, such as a text encoder that is not
            connected -> its modules in the file. No fault of the file, so not in ``missing``.
    """

    file: str
    fitting: int
    total: int
    missing: Mapping[str, str]
    misfits: tuple[Misfit, ...]
    absent: Mapping[str, int]

    @property
    def complete(self) -> bool:
        """True when all that is meant for the components at hand was taken."""
        return not self.missing and not self.misfits


@dataclass(frozen=True, slots=True)
class Binding:
    """A stack on a model: patches by whole target, one report per entry of the stack."""

    patches: Mapping[Target, Patch]
    reports: tuple[BindReport, ...]


def bind(
    stack: Stack,
    shape_of: ShapeOf,
    architecture: Architecture | None = None,
    given: Collection[str] | None = None,
) -> Binding:
    """Bind a stack to a model.

    Args:
        stack: adapters with strengths. A part of strength 0 is left out, and a parameter without parts has no
            patch: strength 0 is exactly the base.
        shape_of: whole target -> shape of that parameter in the model, None where it has none. The model at hand
            decides, so a variant (nine latent channels of an inpainting model) takes what fits it.
        architecture: the model's, None where the caller does not know it.
        given: components that are at hand; None: those of which the model has a parameter of this stack.

    Raises:
        WrongBaseError: an adapter was made for another architecture than the model's.
    """
    found = [_placed(entry, architecture) for entry in stack.entries]
    wholes = {place.whole for deltas in found for _, place, _ in deltas if place is not None}
    shapes = {whole: shape_of(whole) for whole in wholes}
    if given is None:
        given = {whole.module.component for whole, shape in shapes.items() if shape is not None}
    parts: dict[Target, list[PatchPart]] = {}
    reports: list[BindReport] = []
    for entry, deltas in zip(stack.entries, found, strict=True):
        report = _bind_entry(entry, deltas, shapes, given, parts)
        made_for = ARCHITECTURES.get(entry.adapter.architecture)
        if architecture is not None and not _meant_for(made_for, architecture, report):
            raise WrongBaseError(report.file, made_for.title, architecture.title, report.fitting, report.total)
        reports.append(report)
    patches = {whole: Patch(whole, tuple(shapes[whole] or ()), tuple(own)) for whole, own in parts.items()}
    return Binding(patches, tuple(reports))


def _meant_for(made_for: Architecture, architecture: Architecture, report: BindReport) -> bool:
    """Whether a LoRA for one family is meant for the other: the same, or a variant that has most of its modules."""
    if made_for.name == architecture.name:
        return True
    there = report.total - sum(report.absent.values())
    return made_for.family == architecture.family and report.fitting * 2 >= there


# A delta's target in its own family, and in the model: None where that has no such text encoder.
_Placed = tuple[Target, Target | None, Delta]


def _placed(entry: StackEntry, architecture: Architecture | None) -> list[_Placed]:
    """FLUX.1's second text encoder is Chroma's only one: which one is meant goes by its name in the host."""
    made_for = ARCHITECTURES.get(entry.adapter.architecture)
    if architecture is None or architecture.name == made_for.name:
        return [(target, target, delta) for target, delta in entry.adapter.deltas]
    there = {component.encoder: component.name for component in architecture.components}
    names = {component.name: there.get(component.encoder) for component in made_for.components}

    def place(target: Target) -> Target | None:
        name = names.get(target.module.component)
        return None if name is None else target._replace(module=target.module._replace(component=name))

    return [(target, place(target), delta) for target, delta in entry.adapter.deltas]


def _bind_entry(
    entry: StackEntry,
    deltas: Sequence[_Placed],
    shapes: Mapping[Target, Shape | None],
    given: Collection[str],
    parts: dict[Target, list[PatchPart]],
) -> BindReport:
    """Append an adapter's parts to ``parts``; say what the model takes."""
    adapter, strengths = entry.adapter, entry.strengths
    made_for = ARCHITECTURES.get(adapter.architecture)
    fitting: dict[tuple[ModuleKey, Slice | None], bool] = {}
    missing: dict[str, str] = {}
    misfits: list[Misfit] = []
    absent: dict[str, set[tuple[ModuleKey, Slice | None]]] = {}
    for target, there, delta in deltas:
        module, place = target.module, (target.module, target.slice)
        shape = None if there is None else shapes[there.whole]
        fault = shape is None
        if there is None or there.module.component not in given:
            absent.setdefault(module.component, set()).add(place)
        elif shape is None:
            missing[".".join(module)] = f"the model has no {target.parameter} of this name"
        elif misfit := _misfit(target, shape, made_for.shape(target), delta):
            misfits.append(misfit)
            fault = True
        elif strength := strengths.of(module.component, made_for.block(module)):
            part = PatchPart(delta, strength, target.slice, adapter.file)
            parts.setdefault(there.whole, []).append(part)
        fitting[place] = fitting.get(place, True) and not fault
    return BindReport(
        file=adapter.file,
        fitting=sum(fitting.values()),
        total=len(fitting) + len(adapter.report.left),
        missing={**adapter.report.left, **missing},
        misfits=tuple(misfits),
        absent={component: len(places) for component, places in absent.items()},
    )


def _misfit(target: Target, shape: Shape, made_for: Shape | None, delta: Delta) -> Misfit | None:
    """The model's parameter against the shape that the delta was checked against when its file was mapped."""
    if made_for is not None and tuple(shape) == delta.shape_after(made_for) != made_for:
        return None  # the model has the inputs already that this delta brings
    key = f"{'.'.join(target.module)}.{target.parameter}"
    if target.slice is not None:
        dim, start, length = target.slice
        if dim >= len(shape) or start + length > shape[dim]:
            return Misfit(key, tuple(shape), made_for or ())
        shape = sliced_shape(tuple(shape), target.slice)
    # A linear layer and a 1x1 convolution hold the same numbers; models keep projections as either.
    return (
        None
        if made_for is not None and _plain(shape) == _plain(made_for)
        else Misfit(key, tuple(shape), made_for or ())
    )


def _plain(shape: Shape) -> Shape:
    return (*shape[:2], *(size for size in shape[2:] if size != 1))
