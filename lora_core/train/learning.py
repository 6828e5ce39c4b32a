"""Whether every part that should learn does: its gradient is not zero, and its parameters move.

A part is a component with all its groups of parameters. At the start half of an adapter's factors are 0, and so is
the gradient of the other half; parameters that nothing is computed from (layers behind ``clip_skip``) never have one.
The part as a whole has, unless something is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .gradients import norms
from .network.group import Group
from .stops import check_gradients, check_moved

# Steps until the gradient is looked at: with module dropout a single one may be zero by chance.
FIRST_LOOK = 10


@dataclass(slots=True)
class _Part:
    name: str
    parameters: list[nn.Parameter] = field(default_factory=list[nn.Parameter])
    steps: int = 0
    largest: Tensor | None = None
    seen: bool = False
    before: list[Tensor] | None = None
    moved: bool = False


class Learning:
    """Watches the parts of a run until each was seen to learn.

    Args:
        groups: all that is trained.
        stuck_after: steps in which a part has to move.
    """

    def __init__(self, groups: Sequence[Group], stuck_after: int) -> None:
        self.stuck_after = stuck_after
        self._parts: dict[str, _Part] = {}
        for group in groups:
            name = part_of(group)
            self._parts.setdefault(name, _Part(name)).parameters.extend(group.parameters)

    def watch(self, active: Sequence[Group]) -> None:
        """Before a step of the optimizer, with its gradients; ``active``: what trains in it. No wait for the device."""
        for name in dict.fromkeys(part_of(group) for group in active):
            part = self._parts[name]
            part.steps += 1
            if part.before is None and not part.moved:
                part.before = [parameter.detach().clone() for parameter in part.parameters]
            if not part.seen:
                norm = norms([part.parameters])[0]
                part.largest = norm if part.largest is None else torch.maximum(part.largest, norm)

    def check(self, *, last: bool = False) -> None:
        """Look at what was seen, where enough steps were watched or these were the ``last``.

        Raises:
            NotLearningError: a part has no gradient, or does not move.
        """
        for part in self._parts.values():
            if part.largest is not None and (last or part.steps >= min(FIRST_LOOK, self.stuck_after)):
                check_gradients({part.name: float(part.largest)}, part.steps)
                part.seen, part.largest = True, None
            # The first step of a warm-up has a rate of 0.
            if part.before is not None and part.steps >= (2 if last else max(2, self.stuck_after)):
                check_moved(part.name, part.before, part.parameters, part.steps)
                part.moved, part.before = True, None


def part_of(group: Group) -> str:
    """``"denoiser up"`` -> ``"denoiser"``"""
    return group.name.split(" ")[0]
