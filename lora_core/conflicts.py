"""Which LoRAs of a stack do the same twice, or against each other.

Two changes A and B of one model are vectors; how alike they are is their cosine, ``<A, B> / (|A| |B|)`` with the
Frobenius inner product. It comes from the factors, without a difference of full size:

    <up1 down1, up2 down2> = sum((up1^T up2) * (down1 down2^T))

A type that adds without being a product (LoHa, LoKr, full differences) is made module by module. Changes that depend
on the weight (rotations, IA3, GLoRA, new values) are left out; a DoRA counts with its direction. Rows of a fused matrix
meet where they overlap: q alone and a fused qkv share the rows of q. Parts of columns meet only where they are equal.

Inner products are kept per component and block, before strengths. So another strength, its sign included, or another
block weight costs no more than a sum.

Denoiser and text encoders are looked at apart, as the size of a change means something else in each. What is warned of,
by the cosine of the whole part (which is no larger than that of the shared modules alone, so that a small overlap is no
conflict):

- ``ALIKE`` 0.25 and more; from ``NEARLY`` 0.5 on in stronger words. Unrelated LoRAs have about 0: random factors of a
  d x d weight have a spread of 1/d, trained ones for the demo's model (a style, a content) 0.01 to 0.08; one style
  trained twice, with two seeds, has 0.30. Two of one length that are 0.25 alike are together 12 % longer than unrelated
  ones, at 0.5 it is 22 %: strengths that were chosen for each alone are too high together.
- ``OPPOSED`` -0.2 and less: together 11 % shorter than unrelated ones, and 29 % at -0.5. Hardly anybody means to take
  away; who does (strengths of both signs) loses nothing by a line that says so.
- Where one is less than ``NEGLIGIBLE`` (a tenth) of the other in length, neither is said.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, combinations_with_replacement
from math import isfinite, sqrt
from threading import Lock
from typing import NamedTuple

import torch

from .adapters import Delta
from .adapters.base import AdditiveDelta
from .architectures import ARCHITECTURES
from .numeric import shown
from .stack import Adapter, StackEntry, Strengths
from .types import DENOISER, ModuleKey, Shape, Slice, Target

ALIKE = 0.25
NEARLY = 0.5
OPPOSED = -0.2
NEGLIGIBLE = 0.1
# Of the same numbers in two files, up to what rounding makes of them.
SAME = 0.9999
# Pairs whose inner products are kept: of 25 LoRAs and as many more, or of many stacks of a handful.
KEPT = 1000

# Component and block: what strengths can tell apart.
_Group = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Products:
    """Inner products of two adapters at strength 1.

    Args:
        sums: component and block -> sum over its modules of ``<A, B>``.
        shared: modules that both change; rows of a fused matrix are modules of their own.
    """

    sums: Mapping[_Group, float] = field(default_factory=dict[_Group, float])
    shared: int = 0

    def weighted(self, a: Strengths, b: Strengths, encoders: bool) -> float:
        """``<A, B>`` at these strengths, of the text encoders or of the denoiser."""
        return sum(
            a.of(*group) * b.of(*group) * value
            for group, value in self.sums.items()
            if (group[0] != DENOISER) == encoders
        )


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two entries of a stack that are worth a warning.

    Args:
        a, b: their places in the stack.
        cosine: how alike their changes are, of the part that is meant; 0 for different families.
        shared: modules that both change.
        text: one line for the user.
    """

    a: int
    b: int
    cosine: float
    shared: int
    text: str


def find_conflicts(entries: Sequence[StackEntry]) -> list[Conflict]:
    """The pairs of a stack that are worth a warning, in its order.

    An entry whose strengths are all 0 is in none. Numbers that are not finite are nobody's conflict: whoever applies
    the file hears of them.
    """
    there = [place for place, entry in enumerate(entries) if entry.strengths.model or entry.strengths.clip]
    products = kept_products([entries[place].adapter for place in there])
    found: list[Conflict] = []
    for (i, a), (j, b) in combinations(enumerate(there), 2):
        one, other = entries[a], entries[b]
        families = [ARCHITECTURES.get(entry.adapter.architecture) for entry in (one, other)]
        if families[0].family != families[1].family:
            text = f"made for different models: {families[0].title} and {families[1].title}"
            found.append(Conflict(a, b, 0.0, 0, text))
            continue
        pair = products[i, j]
        parts = (
            _part(products[i, i], products[j, j], pair, one.strengths, other.strengths, part) for part in (False, True)
        )
        likeness = max((part for part in parts if part), key=lambda part: abs(part.cosine), default=None)
        if likeness is not None and (text := _said(likeness, one, other)):
            found.append(Conflict(a, b, round(likeness.cosine, 4), pair.shared, text))
    return found


class _Likeness(NamedTuple):
    """Of one part: cosine and both lengths, at their strengths."""

    cosine: float
    a: float
    b: float
    encoders: bool

    @property
    def together(self) -> float:
        """``|A + B|``"""
        return sqrt(max(0.0, self.a**2 + self.b**2 + 2 * self.cosine * self.a * self.b))


def _part(a: Products, b: Products, pair: Products, one: Strengths, other: Strengths, part: bool) -> _Likeness | None:
    """None where it is not worth a line."""
    squares = a.weighted(one, one, part), b.weighted(other, other, part)
    product = pair.weighted(one, other, part)
    if not all(map(isfinite, (*squares, product))) or min(squares) <= 0:
        return None
    lengths = sqrt(squares[0]), sqrt(squares[1])
    if min(lengths) < NEGLIGIBLE * max(lengths):
        return None
    cosine = max(-1.0, min(1.0, product / (lengths[0] * lengths[1])))
    return _Likeness(cosine, *lengths, part) if cosine >= ALIKE or cosine <= OPPOSED else None


def _said(likeness: _Likeness, one: StackEntry, other: StackEntry) -> str:
    part = "text encoders: " if likeness.encoders else ""
    if abs(likeness.cosine) >= SAME and _blockless(one, other):
        which = "the same file" if one.adapter.digest == other.adapter.digest else "the same change in two files"
        return f"{part}{which} twice: its strengths add up to {_sum(one, other, likeness)}"
    if likeness.cosine > 0:
        times = likeness.together / max(likeness.a, likeness.b)
        what = "nearly the same change twice" if likeness.cosine >= NEARLY else "do much the same"
        return (
            f"{part}{what} ({_percent(likeness.cosine)} alike): together {times:.1f} times as "
            f"strong as the stronger one alone"
        )
    lost = 1 - likeness.together / sqrt(likeness.a**2 + likeness.b**2)
    return (
        f"{part}pull against each other ({_percent(-likeness.cosine)} opposed): together {_percent(lost)} weaker than "
        f"two that have nothing to do with each other"
    )


def _blockless(one: StackEntry, other: StackEntry) -> bool:
    return not one.strengths.blocks and not other.strengths.blocks


def _sum(one: StackEntry, other: StackEntry, likeness: _Likeness) -> str:
    """The strength of both together, where lengths say which of the two files holds how much of the change."""
    a, b = one.strengths, other.strengths
    values = (a.clip, b.clip) if likeness.encoders else (a.model, b.model)
    # In two files the same change may be of two sizes: in units of the first one's.
    ratio = (likeness.b / abs(values[1])) / (likeness.a / abs(values[0])) if one.adapter is not other.adapter else 1.0
    return shown(round(values[0] + values[1] * ratio, 3))


def _percent(value: float) -> str:
    return f"{round(100 * value)} %"


_kept: OrderedDict[tuple[str, str], Products] = OrderedDict()
_lock = Lock()


def kept_products(adapters: Sequence[Adapter]) -> dict[tuple[int, int], Products]:
    """``inner_products``, of which those of earlier calls are kept by the adapters' digests: files, sizes and times."""
    pairs = {
        (i, j): (min(adapters[i].digest, adapters[j].digest), max(adapters[i].digest, adapters[j].digest))
        for i, j in combinations_with_replacement(range(len(adapters)), 2)
    }
    with _lock:
        known = {pair: _kept[key] for pair, key in pairs.items() if key in _kept}
    new = inner_products(adapters, [pair for pair in pairs if pair not in known])
    with _lock:
        for pair, key in pairs.items():
            _kept[key] = known.get(pair) or new[pair]
            _kept.move_to_end(key)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return known | new


@torch.no_grad()
def inner_products(adapters: Sequence[Adapter], pairs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Products]:
    """Inner products of pairs of adapters, by their places; those of different families have none.

    Factors are read once for all pairs and multiplied in float32, sums are float64. In memory are the factors of one
    module of all adapters and at most two differences of full size.
    """
    sums: dict[tuple[int, int], dict[_Group, float]] = {pair: defaultdict(float) for pair in pairs}
    shared: dict[tuple[int, int], set[tuple[ModuleKey, Slice | None]]] = {pair: set() for pair in sums}
    family = [ARCHITECTURES.get(adapter.architecture).family for adapter in adapters]
    meeting = [(i, j) for i, j in sums if family[i] == family[j]]
    wanted = {place for pair in meeting for place in pair}
    changes: dict[Target, dict[int, list[_Change]]] = {}
    for place in sorted(wanted):
        for target, change in _changes(adapters[place]):
            changes.setdefault(target, {}).setdefault(place, []).append(change)
    for target, own in changes.items():
        for change in (change for of_one in own.values() for change in of_one):
            change.open()
        for i, j in meeting:
            for a in own.get(i, ()):
                for b in own.get(j, ()):
                    if (value := a.product(b)) is not None:
                        sums[i, j][target.module.component, a.block] += value
                        shared[i, j].add((target.module, a.slice))
        for change in (change for of_one in own.values() for change in of_one):
            change.close()
    return {pair: Products(dict(sums[pair]), len(shared[pair])) for pair in sums}


def _changes(adapter: Adapter) -> Iterator[tuple[Target, _Change]]:
    """The additive changes of an adapter by the whole parameter."""
    architecture = ARCHITECTURES.get(adapter.architecture)
    for target, delta in adapter.deltas:
        additive: Delta = getattr(delta, "direction", delta)
        shape = architecture.shape(target)
        if isinstance(additive, AdditiveDelta) and shape is not None and additive.shape_after(shape) == shape:
            yield target.whole, _Change(additive, target.slice, shape, architecture.block(target.module))


class _Change:
    """An additive change of a parameter or of a part of it; its factors are there between ``open`` and ``close``."""

    def __init__(self, delta: AdditiveDelta, part: Slice | None, shape: Shape, block: str) -> None:
        self.delta, self.slice, self.shape, self.block = delta, part, shape, block
        self.factors: tuple[torch.Tensor, torch.Tensor] | None = None

    def open(self) -> None:
        found = self.delta.factors()
        if found is not None:
            self.factors = found.up.float() * found.scale, found.down.float()

    def close(self) -> None:
        self.factors = None

    def product(self, other: _Change) -> float | None:
        """``<A, B>`` on the rows that both change; None where there are none."""
        rows = _overlap(self, other)
        if rows is None:
            return None
        mine, its, count = rows
        one, two = self.factors, other.factors
        if one and two:
            up, down = one[0].narrow(0, mine, count).T @ two[0].narrow(0, its, count), one[1] @ two[1].T
            return float((up * down).sum(dtype=torch.float64))
        if one:
            return _with_dense(one, mine, other._dense().narrow(0, its, count))
        if two:
            return _with_dense(two, its, self._dense().narrow(0, mine, count))
        dense = self._dense().narrow(0, mine, count)
        again = dense if other is self else other._dense().narrow(0, its, count)
        return float((dense * again).sum(dtype=torch.float64))

    def _dense(self) -> torch.Tensor:
        """(rows, the rest)"""
        return self.delta.difference("cpu", torch.float32).reshape(self.shape[0], -1)


def _with_dense(factors: tuple[torch.Tensor, torch.Tensor], start: int, dense: torch.Tensor) -> float:
    """``<up down, D> = sum(up * (D down^T))``"""
    up, down = factors
    return float((up.narrow(0, start, dense.shape[0]) * (dense @ down.T)).sum(dtype=torch.float64))


def _overlap(a: _Change, b: _Change) -> tuple[int, int, int] | None:
    """(first row in a, first row in b, how many) that both change; None where they do not meet."""
    # A linear layer and a 1x1 convolution hold the same numbers.
    if torch.Size(a.shape[1:]).numel() != torch.Size(b.shape[1:]).numel():
        return None
    if a.slice == b.slice:
        return (0, 0, a.shape[0]) if a.shape[0] == b.shape[0] else None
    if any(part is not None and part.dim != 0 for part in (a.slice, b.slice)):
        return None
    starts = [part.start if part else 0 for part in (a.slice, b.slice)]
    start = max(starts)
    end = min(starts[0] + a.shape[0], starts[1] + b.shape[0])
    return (start - starts[0], start - starts[1], end - start) if end > start else None
