"""One step: what it leaves behind, that it waits for nothing, and that a compiled model takes the same ones."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import small_runs
from host_waits import NoHostWaits
from lora_core.train.borrowed import borrowed
from lora_core.train.config import ModelSection, TrainConfig
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.learning import Learning
from lora_core.train.pieces import Pieces, build
from lora_core.train.processes import Processes
from lora_core.train.stepping import Stepper
from painted import Told
from tiny import TINY_SD1


@contextmanager
def stepping(config: TrainConfig, denoiser: Any) -> Generator[tuple[Stepper, Pieces], None, None]:
    """A stepper before its first step, with the caches filled."""
    with borrowed(denoiser):
        pieces = build(config, Processes(config.run), denoiser)
        try:
            assert pieces.data.prepare(denoiser, Path(config.data.cache), Told(), text=pieces.text_is_fixed)
            denoiser.set_mode("train")
            pieces.network.train()
            yield Stepper(pieces, Learning(pieces.groups, config.run.stuck_after)), pieces
        finally:
            pieces.close()


def test_a_step_leaves_losses_by_picture(demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(tmp_path, run={"accumulate": 2, "batch": 1}, optimizer={"clip": 0.01})

    with stepping(config, demo) as (stepper, pieces):
        before = [parameter.detach().clone() for parameter in pieces.parameters]
        taken = stepper.take(4)

        assert (taken.step, taken.losses.shape, taken.norm.shape) == (4, (2,), ())
        assert not taken.losses.requires_grad
        drawn = [pieces.data.pictures[sample.picture].name for sample in pieces.data.samples(4, 2)]
        assert list(taken.names) == drawn
        assert float(taken.norm) > 0.01, "the length before it was clipped"
        assert stepper.whole
        assert all(parameter.grad is None for parameter in pieces.parameters)
        # At the start the ups are 0 and alone have a gradient.
        moved = [not torch.equal(a, b) for a, b in zip(before, pieces.parameters, strict=True)]
        assert sum(moved) > 0


def test_two_passes_of_one_picture_are_one_of_two(demo: DiffusersDenoiser, tmp_path: Path):
    """Gradients add up in another order, so parameters agree to the rounding of float32."""
    descent = {"optimizer": {"name": "sgd", "learning_rate": 1.0, "weight_decay": 0}}
    ends: list[list[Tensor]] = []
    for run in ({"batch": 2}, {"batch": 1, "accumulate": 2}):
        with stepping(small_runs.config(tmp_path, **descent, run=run), demo) as (stepper, pieces):
            for step in range(2):
                stepper.take(step)
            ends.append([parameter.detach().clone() for parameter in pieces.parameters])

    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_while_the_optimizer_moves_nothing_is_whole(
    demo: DiffusersDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with stepping(small_runs.config(tmp_path), demo) as (stepper, pieces):

        def breaks() -> None:
            raise torch.OutOfMemoryError

        monkeypatch.setattr(pieces.optimizer, "step", breaks)
        with pytest.raises(torch.OutOfMemoryError):
            stepper.take(0)

        assert not stepper.whole


WORDS: dict[str, Any] = {"data": {"trigger": "<s1>"}, "tokens": {"names": ["<s1>"], "keep_training": True}}
QUIET: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "bf16": {"run": {"precision": "bf16"}},
    "text encoder": {"text_encoder": {"train": True}},
    "text encoder in bf16": {"text_encoder": {"train": True}, "run": {"precision": "bf16"}},
    "dropouts": {"network": {"dropout": 0.1, "rank_dropout": 0.1, "module_dropout": 0.1}},
    "dora": {"network": {"type": "dora", "rank_dropout": 0.1}},
    "oft": {"network": {"type": "oft", "rank": 8}},
    "an average, and no limit": {"optimizer": {"ema": 0.9, "clip": 0.0}},
    "passes": {"run": {"accumulate": 2}},
    "new words": WORDS,
    "noise and weights": {"objective": {"noise_offset": 0.1, "weighting": "min_snr", "loss": "huber"}},
    "drawn captions": {"data": {"caption_dropout": 0.3, "shuffle_tags": True}},
    "sgd": {"optimizer": {"name": "sgd"}},
    "lion": {"optimizer": {"name": "lion"}},
    "adafactor": {"optimizer": {"name": "adafactor"}},
    "came": {"optimizer": {"name": "came"}},
    "schedule-free": {"optimizer": {"name": "schedulefree_adamw"}},
}


@pytest.mark.parametrize("case", QUIET)
def test_a_step_does_not_wait_for_the_device(case: str, demo: DiffusersDenoiser, tmp_path: Path):
    """On the CPU the reads that would wait are called as well, and are errors here. The first step may: it fills
    caches, of libraries and ours."""
    with stepping(small_runs.config(tmp_path, **QUIET[case]), demo) as (stepper, _):
        stepper.take(0)
        with NoHostWaits():
            stepper.take(1)


@pytest.mark.parametrize("case", ["loha", "lokr", "prodigy"])
def test_what_libraries_read_in_a_step(case: str, demo: DiffusersDenoiser, tmp_path: Path):
    """Known, and theirs. PEFT's LoHa and LoKr read a random number that is on the CPU always, which waits for nothing.
    Prodigy reads its estimate of the learning rate: one wait a step, which is told where the optimizers are."""
    sections = {"optimizer": {"name": case, "learning_rate": 1.0}} if case == "prodigy" else {"network": {"type": case}}

    with stepping(small_runs.config(tmp_path, **sections), demo) as (stepper, _):
        stepper.take(0)
        with pytest.raises(AssertionError, match="_local_scalar_dense"), NoHostWaits():
            stepper.take(1)


@pytest.mark.slow
def test_compiled_steps_are_the_same(tiny_sd1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Losses agree to the rounding of float32 over three steps, and the model is called as before afterwards.

    The graph with its adapters and its gradient are captured as ever; torch's own operations run in it in place of
    kernels that a C++ compiler would take minutes for.
    """
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    ends: list[list[Tensor]] = []
    for compiled in (False, True):
        model = DiffusersDenoiser.load(ModelSection(base=str(tiny_sd1)), architecture=TINY_SD1)
        before = small_runs.traces(model)
        config = small_runs.config(tmp_path, str(compiled), run={"compile": compiled})
        with stepping(config, model) as (stepper, _):
            assert (model.parts["denoiser"]._compiled_call_impl is not None) == compiled
            ends.append([stepper.take(step).losses for step in range(3)])
        # Hooks are transformers' own, put in at the first call.
        left = [
            name for name, one in small_runs.traces(model).items() if name in before and one[:3] != before[name][:3]
        ]
        assert left == []

    for plain, fused in zip(*ends, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-6)
