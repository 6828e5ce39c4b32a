"""Optimizers that train at one point and save another: schedule-free ones keep an average of the steps."""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.optim import Optimizer


def optimizer_mode(optimizer: Optimizer, mode: Literal["train", "eval"]) -> None:
    """Put the parameters where the next step wants them, or where they should be used; others have one place."""
    switch = getattr(optimizer, mode, None)
    if callable(switch):
        switch()


@contextmanager
def averaged(optimizer: Optimizer) -> Generator[None, None, None]:
    """A block in which the parameters are those to save, validate and draw samples with.

    Afterwards they are what they were, to the last bit: ``eval`` and back to ``train`` would round twice, and a run
    that draws samples would end elsewhere than one that does not.
    """
    if not callable(getattr(optimizer, "eval", None)):
        yield
        return
    groups = cast("list[dict[str, list[Tensor]]]", optimizer.param_groups)
    parameters = [parameter for group in groups for parameter in group["params"]]
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer_mode(optimizer, "eval")
    try:
        yield
    finally:
        optimizer_mode(optimizer, "train")
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


@contextmanager
def stepping_alone(optimizer: Optimizer, names: Collection[str]) -> Generator[None, None, None]:
    """A block in which a schedule-free optimizer knows no other groups of parameters than these.

    It counts the steps of a group whether its parameters have gradients or not, and would weigh the start values of
    a part that rests as if they had been trained.
    """
    groups = optimizer.param_groups
    if not callable(getattr(optimizer, "eval", None)):
        yield
        return
    optimizer.param_groups = [group for group in groups if group["name"] in names]
    try:
        yield
    finally:
        optimizer.param_groups = groups
