"""A run that somebody ends, in the middle of whatever it does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import small_runs
from lora_core.train.denoiser import Conditions
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.events import Watcher
from lora_core.train.loop import train
from lora_core.train.stops import (
    Cancelled,
)


class CancelIn(Watcher):
    """Asks to stop once a stage of some name is reached, so many times."""

    def __init__(self, stage: str, times: int = 1) -> None:
        self.wanted, self.left = stage, times

    def stage(self, what: str, done: int, total: int) -> None:
        if what == self.wanted:
            self.left -= 1

    def cancelled(self) -> bool:
        return self.left <= 0


@pytest.mark.parametrize("stage", ["loading the model", "caching latents", "caching text"])
def test_cancelled_before_the_steps_nothing_is_saved(stage: str, demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(tmp_path)

    result = train(config, watcher=CancelIn(stage, 2), denoiser=demo)

    assert (result.path, result.steps, result.finished) == (None, 0, False)
    assert not small_runs.lora_of(config).exists()
    assert train(config, denoiser=demo).finished


def test_cancelled_before_the_first_step_the_next_call_begins(demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(tmp_path)

    result = train(config, watcher=small_runs.CancelAt(0), denoiser=demo)
    assert (result.path, result.steps, result.finished) == (None, 0, False)
    train(config, denoiser=demo)

    whole = small_runs.config(tmp_path, "whole")
    train(whole, denoiser=demo)
    assert small_runs.differing(small_runs.last_state(config).tensors, small_runs.last_state(whole).tensors) == []


def test_cancelled_while_samples_are_drawn(demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(
        tmp_path, samples={"prompts": ["one", "two", "three"], "every": 3, "first": False, "steps": 1}
    )

    result = train(config, watcher=CancelIn("drawing samples", 2), denoiser=demo)

    assert (result.steps, result.finished) == (3, False)
    pictures = sorted(file.name for file in (tmp_path / "out" / "ink.run" / "samples").glob("ink-*.png"))
    assert pictures == ["ink-000003-0.png"]
    assert train(config, denoiser=demo).finished


def cancels_at_call(demo: DiffusersDenoiser, number: int) -> small_runs.Predict:
    """A model that ends the n-th of its passes, as hosts do that look for their cancel button in every layer."""
    calls = itertools.count(1)

    def predict(*arguments: Any) -> Tensor:
        made = demo.predict(*arguments)
        if next(calls) == number:
            raise Cancelled
        return made

    return predict


def test_cancelled_inside_of_a_step_the_steps_before_it_are_kept(demo: DiffusersDenoiser, tmp_path: Path):
    """Two passes a step: the first gradient of the third step is there when the second pass ends."""
    sections: dict[str, Any] = {"run": {"accumulate": 2, "batch": 1}}
    config = small_runs.config(tmp_path, **sections)

    result = train(config, denoiser=small_runs.Wrapped(demo, predict=cancels_at_call(demo, 6)))
    assert (result.path, result.steps, result.finished) == (small_runs.lora_of(config, 2), 2, False)
    assert train(config, denoiser=demo, resume="must").finished

    whole = small_runs.config(tmp_path, "whole", **sections)
    train(whole, denoiser=demo)
    assert small_runs.differing(small_runs.last_state(config).tensors, small_runs.last_state(whole).tensors) == []
    assert small_runs.losses_of(config) == small_runs.losses_of(whole)


def test_cancelled_by_the_model_while_caches_are_filled(demo: DiffusersDenoiser, tmp_path: Path):
    def encode(captions: Sequence[str]) -> Conditions:
        raise Cancelled

    config = small_runs.config(tmp_path)

    result = train(config, denoiser=small_runs.Wrapped(demo, encode_text=encode))

    assert (result.path, result.steps, result.finished) == (None, 0, False)
    assert train(config, denoiser=demo).finished


def test_a_run_that_goes_on_and_is_cancelled_at_once_leaves_all_as_it_was(demo: DiffusersDenoiser, tmp_path: Path):
    before = small_runs.good_run(tmp_path, demo)

    result = train(small_runs.config(tmp_path), watcher=small_runs.CancelAt(0), denoiser=demo)

    assert (result.path, result.steps, result.finished) == (None, 2, False)
    assert small_runs.contents(tmp_path / "out") == before
