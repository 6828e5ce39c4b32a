"""One step of the optimizer: passes over a batch, the mean of their gradients, and the move.

    g = 1/(processes * passes) sum of the gradients of each pass's mean loss
    parameters <- optimizer(clip(g))

Nothing here waits for the device but the scaler of fp16, which has to know whether a gradient overflowed: losses and
norms stay where they are until somebody looks at them (``meter``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .data import Sample
from .gradients import clip
from .learning import Learning
from .network.group import Group
from .optimizers import stepping_alone
from .phases import TOKENS, set_phase
from .pieces import Pieces


@dataclass(frozen=True, slots=True)
class Taken:
    """What a step left behind.

    Args:
        step: number of the step, from 0.
        losses: (pictures of this process,) float32 on the device.
        norm: of the gradient before it was clipped, a scalar on the device.
        names: of all pictures of the step, in the order in which ``Processes.gather`` puts the losses.
    """

    step: int
    losses: Tensor
    norm: Tensor
    names: Sequence[str]


class Stepper:
    """Takes the steps of a run.

    Attributes:
        whole: False while the optimizer is moving parameters: a state saved then would be none.
    """

    def __init__(self, pieces: Pieces, learning: Learning) -> None:
        self.pieces, self.learning = pieces, learning
        self.whole = True

    def take(self, step: int) -> Taken:
        """Step number ``step``, from 0."""
        pieces = self.pieces
        processes, config = pieces.processes, pieces.config
        active = set_phase(pieces.groups, config, step)
        samples = pieces.data.samples(step, pieces.pictures_a_step)
        if step + 1 < config.run.steps and not pieces.data.latents_are_kept:
            following = pieces.data.samples(step + 1, pieces.pictures_a_step)
            pieces.data.prefetch([sample for own in self._passes(following) for sample in own])
        losses: list[Tensor] = []
        for number, own in enumerate(self._passes(samples)):
            pieces.network.apply_dropouts(config.run.seed, step, number * processes.count + processes.index)
            each = pieces.forward.losses(pieces.data.batch(step, own, pieces.denoiser), step)
            processes.backward(each.mean() / config.run.accumulate)
            losses.append(each.detach())
        norm = self._move(active)
        return Taken(step, torch.cat(losses), norm, self._names(samples))

    def _passes(self, samples: Sequence[Sample], index: int | None = None) -> list[Sequence[Sample]]:
        """The passes of a process, this one when left out: every process takes a batch of each pass."""
        run, processes = self.pieces.config.run, self.pieces.processes
        index = processes.index if index is None else index
        starts = [(number * processes.count + index) * run.batch for number in range(run.accumulate)]
        return [samples[start : start + run.batch] for start in starts]

    def _move(self, active: Sequence[Group]) -> Tensor:
        pieces, scaler = self.pieces, self.pieces.processes.scaler
        parameters = [parameter for group in active for parameter in group.parameters]
        pieces.processes.average_gradients(parameters)
        if scaler is not None:
            scaler.unscale_(pieces.optimizer)
        self.learning.watch(active)
        norm = clip(parameters, pieces.config.optimizer.clip)
        self.whole = False
        with stepping_alone(pieces.optimizer, [group.name for group in active]):
            if scaler is None:
                pieces.optimizer.step()
            else:
                scaler.step(pieces.optimizer)
                scaler.update()
        rates = {group["name"]: group["lr"] for group in pieces.optimizer.param_groups}
        pieces.schedule.step()
        pieces.optimizer.zero_grad(set_to_none=True)
        if pieces.tokens is not None and any(group.name == TOKENS for group in active):
            pieces.tokens.decay(rates[TOKENS])
        if pieces.ema is not None:
            pieces.ema.update()
        self.whole = True
        return norm.detach()

    def _names(self, samples: Sequence[Sample]) -> list[str]:
        pictures = self.pieces.data.pictures
        each = [own for index in range(self.pieces.processes.count) for own in self._passes(samples, index)]
        return [pictures[sample.picture].name for own in each for sample in own]
