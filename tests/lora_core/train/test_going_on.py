"""A run that is called again: what it may go on with, and when it has nothing to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import small_runs
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.loop import train
from lora_core.train.stops import (
    ResumeError,
)
from painted import Told


def test_another_rank_is_refused_and_both_are_named(demo: DiffusersDenoiser, tmp_path: Path):
    before = small_runs.good_run(tmp_path, demo)

    with pytest.raises(ResumeError, match=r"network\.rank was 2, is 4\. Set them back"):
        train(small_runs.config(tmp_path, network={"rank": 4}), denoiser=demo)

    assert small_runs.contents(tmp_path / "out") == before


def test_other_pictures_are_refused(demo: DiffusersDenoiser, tmp_path: Path):
    small_runs.good_run(tmp_path, demo)
    Image.new("RGB", (64, 64), "red").save(tmp_path / "pictures" / "p1.png")

    with pytest.raises(ResumeError, match=r"pictures, captions or settings of \[data\] are not those of the run"):
        train(small_runs.config(tmp_path), denoiser=demo)


def test_another_model_of_the_same_name_is_refused(demo: DiffusersDenoiser, tmp_path: Path):
    small_runs.good_run(tmp_path, demo)
    weight = next(demo.parts["denoiser"].parameters())
    weight.data[0] += 1

    with pytest.raises(ResumeError, match="the base model is not the one that the run was begun with"):
        train(small_runs.config(tmp_path), denoiser=demo)

    weight.data[0] -= 1


def test_the_base_may_have_moved(demo: DiffusersDenoiser, tmp_path: Path):
    small_runs.good_run(tmp_path, demo)
    elsewhere = shutil.copytree(small_runs.BASE, tmp_path / "elsewhere" / small_runs.BASE.name)
    told = Told()

    assert train(small_runs.config(tmp_path, model={"base": str(elsewhere)}), watcher=told).steps == 6
    assert told.warnings == []


def test_another_learning_rate_is_told_and_used(demo: DiffusersDenoiser, tmp_path: Path):
    small_runs.good_run(tmp_path, demo)
    told = Told()
    config = small_runs.config(tmp_path, optimizer={"learning_rate": 5e-4})

    train(config, watcher=told, denoiser=demo)

    assert told.warnings == ["the run goes on with changed settings: optimizer.learning_rate was 0.001, is 0.0005"]
    rates = {step: value for step, name, value in small_runs.rows_of(config) if name == "rate denoiser"}
    assert rates == {1: 1e-3, 2: 1e-3, 3: 5e-4, 4: 5e-4, 5: 5e-4, 6: 5e-4}


def test_an_average_that_is_switched_on_later_begins_there(demo: DiffusersDenoiser, tmp_path: Path):
    small_runs.good_run(tmp_path, demo)
    config = small_runs.config(tmp_path, run={"steps": 3}, optimizer={"ema": 0.9})
    before = small_runs.last_state(config).tensors

    train(config, denoiser=demo)

    state = small_runs.last_state(config)
    average = [tensor for name, tensor in state.tensors.items() if name.startswith("ema.average.")]
    # The first update keeps a tenth of where it began.
    expected = [
        before[name] + 0.9 * (tensor - before[name])
        for name, tensor in state.tensors.items()
        if name.startswith("network.")
    ]
    # Averages have numbers for names; sums of 128 values of float32 tell which is which.
    got, wanted = (sorted(float(one.double().sum()) for one in some) for some in (average, expected))
    assert got == pytest.approx(wanted, abs=1e-5)


def test_a_state_is_wanted_and_there_is_none(demo: DiffusersDenoiser, tmp_path: Path):
    with pytest.raises(ResumeError, match="there is no state to go on from"):
        train(small_runs.config(tmp_path), denoiser=demo, resume="must")


def test_a_damaged_state_is_said_to_be_so(demo: DiffusersDenoiser, tmp_path: Path):
    small_runs.good_run(tmp_path, demo)
    newest = small_runs.states_of(small_runs.config(tmp_path)) / "step-000002" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])

    with pytest.raises(ResumeError, match=r"step-000002: the state is damaged .*\. Start anew with --fresh"):
        train(small_runs.config(tmp_path), denoiser=demo)


def test_anew_is_the_first_time_again(demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(tmp_path)
    train(config, denoiser=demo)
    first = small_runs.last_state(config).tensors, small_runs.rows_of(config)

    result = train(config, denoiser=demo, resume="never")

    assert result.steps == 6
    assert small_runs.differing(small_runs.last_state(config).tensors, first[0]) == []
    assert small_runs.rows_of(config) == first[1]


def test_a_finished_run_does_nothing_when_it_is_called_again(demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(tmp_path)
    first = train(config, denoiser=demo)
    before = small_runs.contents(tmp_path / "out")

    again = train(config, denoiser=small_runs.NotToBeUsed(demo))  # type: ignore[arg-type]

    assert again == first
    assert small_runs.contents(tmp_path / "out") == before


def test_a_finished_run_of_another_model_is_told(demo: DiffusersDenoiser, tmp_path: Path):
    """Settings name a model by its place; what is there may be another one."""
    config = small_runs.config(tmp_path)
    train(config, denoiser=demo)
    other = small_runs.NotToBeUsed(demo)
    other.vae_fingerprint = "another"

    with pytest.raises(ResumeError, match="the base model is not the one that the run was begun with"):
        train(config, denoiser=other)  # type: ignore[arg-type]


def test_so_does_one_of_embeddings_alone(demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(
        tmp_path, data={"trigger": "<s1>"}, tokens={"names": ["<s1>"], "start": ["food"]}, network={"train": False}
    )
    first = train(config, denoiser=demo)
    assert first.path == tmp_path / "out" / "ink.s1.safetensors"

    assert train(config, denoiser=small_runs.NotToBeUsed(demo)) == first  # type: ignore[arg-type]


def test_a_finished_run_whose_file_is_gone_writes_it_again(demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(tmp_path)
    train(config, denoiser=demo)
    before = small_runs.tensors_of(config)
    small_runs.lora_of(config).unlink()

    result = train(config, denoiser=small_runs.Wrapped(demo, predict=None))

    assert result.finished
    assert small_runs.differing(small_runs.tensors_of(config), before) == []


def test_a_finished_run_writes_its_file_in_another_way_when_it_is_asked_to(demo: DiffusersDenoiser, tmp_path: Path):
    train(small_runs.config(tmp_path), denoiser=demo)
    half = small_runs.config(tmp_path, output={"dtype": "bf16", "title": "Ink"})

    train(half, denoiser=small_runs.Wrapped(demo, predict=None))

    factors = [tensor for name, tensor in small_runs.tensors_of(half).items() if not name.endswith("alpha")]
    assert {tensor.dtype for tensor in factors} == {torch.bfloat16}
    assert train(half, denoiser=small_runs.NotToBeUsed(demo)).finished  # type: ignore[arg-type]


def test_what_changes_nothing_any_more_is_told(demo: DiffusersDenoiser, tmp_path: Path):
    train(small_runs.config(tmp_path), denoiser=demo)
    told = Told()

    train(
        small_runs.config(tmp_path, optimizer={"learning_rate": 1e-5}),
        watcher=told,
        denoiser=small_runs.NotToBeUsed(demo),  # type: ignore[arg-type]
    )

    assert told.warnings == [
        "all 6 steps of the run are done, so these change nothing (raise run.steps or start anew with --fresh): "
        "optimizer.learning_rate was 0.001, is 1e-05"
    ]
