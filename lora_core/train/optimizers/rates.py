"""The learning rate over a run, by transformers' schedules, which diffusers' are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ..config import OptimizerSection

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


def warmup_steps(section: OptimizerSection, steps: int) -> int:
    """Steps in which the rate rises, at most a tenth of the run: a short run would else be all warm-up."""
    return min(section.warmup, steps // 10)


def build_schedule(section: OptimizerSection, optimizer: Optimizer, steps: int) -> LRScheduler:
    """To be stepped once after each step of the optimizer; ``steps``: of the whole run.

    Every group keeps its own rate, all rates are multiplied by the same factor. ``constant`` has no warm-up.
    """
    from transformers import optimization

    get_scheduler = cast(Any, optimization).get_scheduler  # its types are not complete
    own: dict[str, dict[str, float]] = {
        "cosine_with_restarts": {"num_cycles": section.cycles},
        "polynomial": {"power": section.power},
    }
    return get_scheduler(
        section.schedule,
        optimizer,
        num_warmup_steps=warmup_steps(section, steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=own.get(section.schedule),
    )
