"""Which pictures a step sees: a function of (seed, step), without end and without a remainder.

Each bucket has an endless stream: one permutation of its pictures after another, each picture as often as it repeats.
A step takes ``count`` draws from one bucket. Buckets take turns in cycles in which each has turns in proportion to its
pictures, spread evenly, so that all pictures are seen equally often and no batch is partial.

With pictures of the class every second draw is one of them, from a stream of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd
from typing import Any, cast

import torch

from ..seeds import generator
from .views import Size

_Cycle = tuple[torch.Tensor, torch.Tensor]


def permutation(count: int, random: torch.Generator) -> list[int]:
    """The numbers below ``count`` in random order."""
    return cast(Any, torch.randperm(count, generator=random)).tolist()  # torch does not say what a list of it holds


class Order:
    """The order of the draws.

    Args:
        seed: of the run.
        pictures: bucket -> indices of its pictures, each as often as it repeats.
        priors: bucket -> indices of pictures of the class that fit it; the same buckets, or none.
    """

    def __init__(self, seed: int, pictures: Mapping[Size, Sequence[int]], priors: Mapping[Size, Sequence[int]]) -> None:
        self.seed = seed
        self.sizes = sorted(pictures)
        self.streams = {("picture", size): tuple(pictures[size]) for size in self.sizes}
        self.streams |= {("prior", size): tuple(priors[size]) for size in sorted(priors)}
        counts = [len(pictures[size]) for size in self.sizes]
        common = gcd(*counts)
        self.turns = [count // common for count in counts]
        # The last permutation of each stream and the last cycle: steps mostly come in their order.
        self._permutations: dict[tuple[str, Size], tuple[int, list[int]]] = {}
        self._cycle: tuple[int, _Cycle] | None = None

    def draw(self, step: int, count: int) -> tuple[Size, list[int]]:
        """Bucket of a step, and the indices of its pictures."""
        size, turn = self._turn(step)
        indices = range(turn * count, (turn + 1) * count)
        if ("prior", size) not in self.streams:
            return size, [self._at("picture", size, index) for index in indices]
        return size, [self._at("prior" if index % 2 else "picture", size, index // 2) for index in indices]

    def _turn(self, step: int) -> tuple[Size, int]:
        """The bucket of a step, and how many steps before it had the same."""
        if len(self.sizes) == 1:
            return self.sizes[0], step
        number, place = divmod(step, sum(self.turns))
        if self._cycle is None or self._cycle[0] != number:
            self._cycle = number, self._make_cycle(number)
        buckets, turns = self._cycle[1]
        bucket = int(buckets[place])
        return self.sizes[bucket], number * self.turns[bucket] + int(turns[place])

    def _make_cycle(self, number: int) -> _Cycle:
        """Bucket and turn of each step of a cycle: a bucket's turns fall at random, one in each equal part of it."""
        random = generator(self.seed, "buckets", number)
        turns = [torch.arange(count) for count in self.turns]
        buckets = torch.cat([torch.full_like(each, bucket) for bucket, each in enumerate(turns)])
        when = [(each + torch.rand(len(each), generator=random, dtype=torch.float64)) / len(each) for each in turns]
        order = torch.cat(when).argsort(stable=True)
        return buckets[order], torch.cat(turns)[order]

    def _at(self, kind: str, size: Size, index: int) -> int:
        stream = self.streams[kind, size]
        number, place = divmod(index, len(stream))
        kept = self._permutations.get((kind, size))
        if kept is None or kept[0] != number:
            kept = number, permutation(len(stream), generator(self.seed, "order", kind, size, number))
            self._permutations[kind, size] = kept
        return stream[kept[1][place]]
