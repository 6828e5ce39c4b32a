"""``train`` from settings to a file: what stops it, what it says on the way, and when it has nothing to do."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import small_runs
from lora_core.errors import ConfigError
from lora_core.train.config import TrainConfig
from lora_core.train.data.encoding import LatentsError
from lora_core.train.denoiser import Conditions, Latents
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.events import Progress, Sampled, Watcher
from lora_core.train.loop import Resume, train
from lora_core.train.output import saving
from lora_core.train.output.checking import NotAsTrainedError
from lora_core.train.stops import (
    Cancelled,
    DivergedError,
    NotLearningError,
    OutOfMemoryError,
    ResumeError,
    TrainingStoppedError,
)
from painted import Told, paint_some

Predict = Callable[[Tensor, Tensor, Conditions, Tensor], Tensor]


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files below a folder; curves and settings of the run, which say what happened last, are left out."""
    last = ("loss.csv", "config.toml")
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.name not in last}


def good_run(folder: Path, demo: DiffusersDenoiser, **sections: Any) -> dict[str, bytes]:
    """Two steps that all is well with: a LoRA and a state that later faults must not touch."""
    result = train(small_runs.config(folder, **{**sections, "run": {"steps": 2}}), denoiser=demo)
    assert result.finished
    return contents(folder / "out")


class Backwards(torch.autograd.Function):
    """What it is given; its gradient is not a number."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * float("nan")


# Hard stops: what a model does wrong, and what is said


def spoils_one_picture(demo: DiffusersDenoiser) -> Predict:
    theirs = demo.encode_text(["thing 2"])["text"][0]

    def predict(noisy: Tensor, timesteps: Tensor, conditions: Conditions, sizes: Tensor) -> Tensor:
        made = demo.predict(noisy, timesteps, conditions, sizes)
        its = torch.stack([torch.equal(row, theirs) * torch.ones(1, 1, 1) for row in conditions["text"]]) > 0
        return made.masked_fill(its, float("nan"))

    return predict


def spoils_gradients(demo: DiffusersDenoiser) -> Predict:
    return lambda *arguments: Backwards.apply(demo.predict(*arguments))  # type: ignore[no-untyped-call]


def test_a_loss_that_is_no_number_names_its_picture(demo: DiffusersDenoiser, tmp_path: Path):
    before = good_run(tmp_path, demo)

    with pytest.raises(DivergedError) as caught:
        train(small_runs.config(tmp_path), denoiser=small_runs.Wrapped(demo, predict=spoils_one_picture(demo)))

    assert caught.value.pictures == ("p2.png",)
    assert "the loss is nan for p2.png" in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_a_gradient_that_is_no_number_behind_a_loss_that_is_one(demo: DiffusersDenoiser, tmp_path: Path):
    before = good_run(tmp_path, demo)

    with pytest.raises(DivergedError, match="step 3: the gradient is nan for p"):
        train(small_runs.config(tmp_path), denoiser=small_runs.Wrapped(demo, predict=spoils_gradients(demo)))

    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("every", ["save_every", "state_every"])
def test_nothing_is_written_of_steps_whose_loss_nobody_looked_at_yet(
    every: str, demo: DiffusersDenoiser, tmp_path: Path
):
    """A look every ten steps, a file after each: the spoiled ones are not among them."""
    before = good_run(tmp_path, demo)

    with pytest.raises(DivergedError):
        train(
            small_runs.config(tmp_path, run={"log_every": 10}, output={every: 1}),
            denoiser=small_runs.Wrapped(demo, predict=spoils_gradients(demo)),
        )

    assert contents(tmp_path / "out") == before


def test_after_a_stop_the_same_command_goes_on_as_if_nothing_had_been(demo: DiffusersDenoiser, tmp_path: Path):
    good_run(tmp_path, demo)
    with pytest.raises(DivergedError):
        train(small_runs.config(tmp_path), denoiser=small_runs.Wrapped(demo, predict=spoils_one_picture(demo)))
    train(small_runs.config(tmp_path), denoiser=demo)

    train(small_runs.config(tmp_path, "whole"), denoiser=demo)

    assert (
        small_runs.differing(
            small_runs.last_state(small_runs.config(tmp_path)).tensors,
            small_runs.last_state(small_runs.config(tmp_path, "whole")).tensors,
        )
        == []
    )


def test_latents_that_are_no_numbers_name_their_picture(demo: DiffusersDenoiser, tmp_path: Path):
    def encode(pixels: Tensor) -> Latents:
        return Latents(demo.encode_pictures(pixels).mean * float("nan"))

    with pytest.raises(LatentsError, match=r"p0\.png: .* latents are NaN or infinite"):
        train(small_runs.config(tmp_path), denoiser=small_runs.Wrapped(demo, encode_pictures=encode))


def test_without_a_caption_it_says_where_it_looked(demo: DiffusersDenoiser, tmp_path: Path):
    pictures = paint_some(tmp_path / "pictures", 2)
    for file in pictures.glob("*.txt"):
        file.unlink()

    with pytest.raises(ConfigError) as caught:
        train(small_runs.config(tmp_path), denoiser=demo)

    assert "metadata" in str(caught.value)
    assert ".txt" in str(caught.value)


def test_a_text_encoder_that_the_model_does_not_listen_to(demo: DiffusersDenoiser, tmp_path: Path):
    def predict(noisy: Tensor, timesteps: Tensor, conditions: Conditions, sizes: Tensor) -> Tensor:
        return demo.predict(noisy, timesteps, {"text": conditions["text"].detach()}, sizes)

    with pytest.raises(NotLearningError, match="text_encoder: its gradient is exactly zero in 6 steps"):
        train(
            small_runs.config(tmp_path, text_encoder={"train": True}),
            denoiser=small_runs.Wrapped(demo, predict=predict),
        )

    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_a_rate_that_is_lost_in_rounding(demo: DiffusersDenoiser, tmp_path: Path):
    """Factors that start at 0 move by any rate; those of a part that is learned already do not."""
    first = small_runs.config(tmp_path, "first")
    train(first, denoiser=demo)
    goes_on = {"continue_from": str(small_runs.lora_of(first))}

    with pytest.raises(NotLearningError, match="denoiser: its parameters did not move in 6 steps"):
        train(
            small_runs.config(tmp_path, network=goes_on, optimizer={"learning_rate": 1e-30, "schedule": "constant"}),
            denoiser=demo,
        )


def test_a_part_that_is_stuck_is_found_long_before_the_end(demo: DiffusersDenoiser, tmp_path: Path):
    def predict(noisy: Tensor, timesteps: Tensor, conditions: Conditions, sizes: Tensor) -> Tensor:
        return demo.predict(noisy, timesteps, conditions, sizes) * 0.0

    with pytest.raises(NotLearningError, match="denoiser: its gradient is exactly zero in 3 steps"):
        train(
            small_runs.config(tmp_path, run={"steps": 500, "stuck_after": 3}),
            denoiser=small_runs.Wrapped(demo, predict=predict),
        )


def test_a_file_that_does_not_do_what_was_trained(
    demo: DiffusersDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = good_run(tmp_path, demo)
    write = saving.write_conversion

    def damaged(*arguments: Any) -> Any:
        from safetensors.torch import load_file, save_file

        made, path = write(*arguments), arguments[2]
        save_file({name: tensor * 2 for name, tensor in load_file(path).items()}, path)
        return made

    monkeypatch.setattr(saving, "write_conversion", damaged)
    with pytest.raises(NotAsTrainedError, match=r"an older one stays as it was\. The state of the run is kept"):
        train(small_runs.config(tmp_path), denoiser=demo)
    monkeypatch.setattr(saving, "write_conversion", write)

    lora = str(small_runs.lora_of(small_runs.config(tmp_path)))
    assert contents(tmp_path / "out")[lora] == before[lora]
    # Nothing was to be saved on the way, and still not a step is lost.
    assert small_runs.last_state(small_runs.config(tmp_path)).step == 6
    assert train(small_runs.config(tmp_path), denoiser=small_runs.Wrapped(demo, predict=None)).finished


def test_numbers_that_fp16_cannot_hold(demo: DiffusersDenoiser, tmp_path: Path):
    told = Told()

    result = train(
        small_runs.config(tmp_path, optimizer={"learning_rate": 1e-10}, output={"dtype": "fp16"}),
        watcher=told,
        denoiser=demo,
    )

    assert told.warnings == result.report["warnings"]
    assert "% of the trained numbers are too small for fp16" in told.warnings[0]
    assert "rounding to f16 takes 1e+02 % of the change" in told.warnings[1]


def fails_at(demo: DiffusersDenoiser, call: int, error: Exception) -> Predict:
    calls = iter(range(1, 10**6))

    def predict(*arguments: Any) -> Tensor:
        if next(calls) == call:
            raise error
        return demo.predict(*arguments)

    return predict


def test_without_memory_the_steps_so_far_are_kept(demo: DiffusersDenoiser, tmp_path: Path):
    predict = fails_at(demo, 3, torch.OutOfMemoryError("CUDA out of memory"))
    config = small_runs.config(tmp_path)

    with pytest.raises(OutOfMemoryError) as caught:
        train(config, denoiser=small_runs.Wrapped(demo, predict=predict))

    assert str(caught.value).startswith("step 3: cpu has no memory left. Lower run.batch (and raise run.accumulate)")
    assert "The state after step 2 is saved: the same command goes on." in str(caught.value)
    assert "\n" not in str(caught.value)
    assert small_runs.last_state(config).step == 2

    train(config, denoiser=demo, resume="must")
    train(small_runs.config(tmp_path, "whole"), denoiser=demo)
    whole = small_runs.last_state(small_runs.config(tmp_path, "whole"))
    assert small_runs.differing(small_runs.last_state(config).tensors, whole.tensors) == []


def test_without_memory_in_the_first_step_there_is_nothing_to_keep(demo: DiffusersDenoiser, tmp_path: Path):
    predict = fails_at(demo, 1, torch.OutOfMemoryError("CUDA out of memory"))

    with pytest.raises(OutOfMemoryError) as caught:
        train(small_runs.config(tmp_path), denoiser=small_runs.Wrapped(demo, predict=predict))

    assert "saved" not in str(caught.value)
    assert not small_runs.states_of(small_runs.config(tmp_path)).exists()


def test_without_memory_for_the_caches_it_is_one_line_too(demo: DiffusersDenoiser, tmp_path: Path):
    def encode(pixels: Tensor) -> Latents:
        raise RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GiB)")

    with pytest.raises(OutOfMemoryError, match="step 1: cpu has no memory left"):
        train(small_runs.config(tmp_path), denoiser=small_runs.Wrapped(demo, encode_pictures=encode))


def test_without_memory_for_the_adapters_too(demo: DiffusersDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def build(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("lora_core.train.loop.build", build)

    with pytest.raises(OutOfMemoryError, match="step 1: cpu has no memory left"):
        train(small_runs.config(tmp_path), denoiser=demo)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room for a picture"), OSError(28, "No space left")])
def test_what_fails_beside_the_steps_does_not_lose_them(error: Exception, demo: DiffusersDenoiser, tmp_path: Path):
    """The last samples fail, and nothing was ever saved on the way."""

    def sample(*arguments: Any, **more: Any) -> Tensor:
        raise error

    config = small_runs.config(tmp_path, samples={"prompts": ["thing"], "first": False, "steps": 1})
    kind = OutOfMemoryError if isinstance(error, torch.OutOfMemoryError) else OSError

    with pytest.raises(kind):
        train(config, denoiser=small_runs.Wrapped(demo, sample=sample))

    assert small_runs.last_state(config).step == 6
    assert train(config, denoiser=demo).finished


def test_a_device_that_is_not_there(demo: DiffusersDenoiser, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"run\.device: cuda:99 cannot be used .*: set auto or cpu"):
        train(small_runs.config(tmp_path, run={"device": "cuda:99"}), denoiser=demo)


# Going on


def test_another_rank_is_refused_and_both_are_named(demo: DiffusersDenoiser, tmp_path: Path):
    before = good_run(tmp_path, demo)

    with pytest.raises(ResumeError, match=r"network\.rank was 2, is 4\. Set them back"):
        train(small_runs.config(tmp_path, network={"rank": 4}), denoiser=demo)

    assert contents(tmp_path / "out") == before


def test_other_pictures_are_refused(demo: DiffusersDenoiser, tmp_path: Path):
    good_run(tmp_path, demo)
    Image.new("RGB", (64, 64), "red").save(tmp_path / "pictures" / "p1.png")

    with pytest.raises(ResumeError, match=r"pictures, captions or settings of \[data\] are not those of the run"):
        train(small_runs.config(tmp_path), denoiser=demo)


def test_another_model_of_the_same_name_is_refused(demo: DiffusersDenoiser, tmp_path: Path):
    good_run(tmp_path, demo)
    weight = next(demo.parts["denoiser"].parameters())
    weight.data[0] += 1

    with pytest.raises(ResumeError, match="the base model is not the one that the run was begun with"):
        train(small_runs.config(tmp_path), denoiser=demo)

    weight.data[0] -= 1


def test_the_base_may_have_moved(demo: DiffusersDenoiser, tmp_path: Path):
    good_run(tmp_path, demo)
    elsewhere = shutil.copytree(small_runs.BASE, tmp_path / "elsewhere" / small_runs.BASE.name)
    told = Told()

    assert train(small_runs.config(tmp_path, model={"base": str(elsewhere)}), watcher=told).steps == 6
    assert told.warnings == []


def test_another_learning_rate_is_told_and_used(demo: DiffusersDenoiser, tmp_path: Path):
    good_run(tmp_path, demo)
    told = Told()
    config = small_runs.config(tmp_path, optimizer={"learning_rate": 5e-4})

    train(config, watcher=told, denoiser=demo)

    assert told.warnings == ["the run goes on with changed settings: optimizer.learning_rate was 0.001, is 0.0005"]
    rates = {step: value for step, name, value in small_runs.rows_of(config) if name == "rate denoiser"}
    assert rates == {1: 1e-3, 2: 1e-3, 3: 5e-4, 4: 5e-4, 5: 5e-4, 6: 5e-4}


def test_an_average_that_is_switched_on_later_begins_there(demo: DiffusersDenoiser, tmp_path: Path):
    good_run(tmp_path, demo)
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
    good_run(tmp_path, demo)
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


class NotToBeUsed:
    """A model that tells which one it is, and nothing else."""

    def __init__(self, demo: DiffusersDenoiser) -> None:
        self.parts = demo.parts
        self.vae_fingerprint, self.text_fingerprint = demo.vae_fingerprint, demo.text_fingerprint

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the model was asked for its {name}")


def test_a_finished_run_does_nothing_when_it_is_called_again(demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(tmp_path)
    first = train(config, denoiser=demo)
    before = contents(tmp_path / "out")

    again = train(config, denoiser=NotToBeUsed(demo))  # type: ignore[arg-type]

    assert again == first
    assert contents(tmp_path / "out") == before


def test_a_finished_run_of_another_model_is_told(demo: DiffusersDenoiser, tmp_path: Path):
    """Settings name a model by its place; what is there may be another one."""
    config = small_runs.config(tmp_path)
    train(config, denoiser=demo)
    other = NotToBeUsed(demo)
    other.vae_fingerprint = "another"

    with pytest.raises(ResumeError, match="the base model is not the one that the run was begun with"):
        train(config, denoiser=other)  # type: ignore[arg-type]


def test_so_does_one_of_embeddings_alone(demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(
        tmp_path, data={"trigger": "<s1>"}, tokens={"names": ["<s1>"], "start": ["food"]}, network={"train": False}
    )
    first = train(config, denoiser=demo)
    assert first.path == tmp_path / "out" / "ink.s1.safetensors"

    assert train(config, denoiser=NotToBeUsed(demo)) == first  # type: ignore[arg-type]


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
    assert train(half, denoiser=NotToBeUsed(demo)).finished  # type: ignore[arg-type]


def test_what_changes_nothing_any_more_is_told(demo: DiffusersDenoiser, tmp_path: Path):
    train(small_runs.config(tmp_path), denoiser=demo)
    told = Told()

    train(
        small_runs.config(tmp_path, optimizer={"learning_rate": 1e-5}),
        watcher=told,
        denoiser=NotToBeUsed(demo),  # type: ignore[arg-type]
    )

    assert told.warnings == [
        "all 6 steps of the run are done, so these change nothing (raise run.steps or start anew with --fresh): "
        "optimizer.learning_rate was 0.001, is 1e-05"
    ]


# Cancelling


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


def cancels_at_call(demo: DiffusersDenoiser, number: int) -> Predict:
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


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_a_lora_that_no_run_made_is_not_written_over(resume: Resume, demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(tmp_path)
    small_runs.lora_of(config).parent.mkdir()
    small_runs.lora_of(config).write_bytes(b"precious")

    with pytest.raises(ConfigError, match="no run of this name made it"):
        train(config, denoiser=demo, resume=resume)

    assert small_runs.lora_of(config).read_bytes() == b"precious"


def test_the_runs_own_folder_may_be_elsewhere(demo: DiffusersDenoiser, tmp_path: Path):
    """Hosts list every file of their folder of LoRAs: states and caches are none."""
    config = small_runs.config(tmp_path, output={"runs": str(tmp_path / "runs")}, data={"cache": ""}, run={"steps": 2})

    result = train(config, denoiser=demo)

    assert [file.name for file in (tmp_path / "out").iterdir()] == ["ink.safetensors"]
    assert {"state", "cache", "loss.csv"} <= {file.name for file in (tmp_path / "runs" / "ink.run").iterdir()}
    assert result.report["folder"] == str(tmp_path / "runs" / "ink.run")
    assert train(config, denoiser=demo).report == result.report  # finished: the state was found


def test_a_run_that_goes_on_and_is_cancelled_at_once_leaves_all_as_it_was(demo: DiffusersDenoiser, tmp_path: Path):
    before = good_run(tmp_path, demo)

    result = train(small_runs.config(tmp_path), watcher=small_runs.CancelAt(0), denoiser=demo)

    assert (result.path, result.steps, result.finished) == (None, 2, False)
    assert contents(tmp_path / "out") == before


# Files on the way


def test_the_newest_files_of_steps_stay(demo: DiffusersDenoiser, tmp_path: Path):
    (tmp_path / "out").mkdir()
    later = tmp_path / "out" / "ink-000100.safetensors"
    later.write_bytes(b"of another run of this name")

    train(small_runs.config(tmp_path, output={"save_every": 1, "keep": 2}), denoiser=demo)

    names = sorted(file.name for file in (tmp_path / "out").glob("*.safetensors"))
    assert names == ["ink-000004.safetensors", "ink-000005.safetensors", "ink-000100.safetensors", "ink.safetensors"]
    states = sorted(file.name for file in small_runs.states_of(small_runs.config(tmp_path)).iterdir())
    assert states == ["step-000005", "step-000006"]


def test_of_embeddings_alone_too(demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(
        tmp_path,
        data={"trigger": "<s1> <s2>"},
        tokens={"names": ["<s1>", "<s2>"]},
        network={"train": False},
        output={"save_every": 1, "keep": 1},
    )
    train(config, denoiser=demo)

    names = sorted(file.name for file in (tmp_path / "out").glob("*.safetensors"))
    assert names == [
        *("ink-000005.s1.safetensors", "ink-000005.s2.safetensors"),
        *("ink.s1.safetensors", "ink.s2.safetensors"),
    ]


def test_states_are_saved_on_their_own(demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(tmp_path, output={"state_every": 2})
    with pytest.raises(RuntimeError, match="power cut"):
        train(config, denoiser=small_runs.Wrapped(demo, predict=fails_at(demo, 5, RuntimeError("power cut"))))

    assert sorted(file.name for file in small_runs.states_of(config).iterdir()) == ["step-000002", "step-000004"]
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_what_is_drawn_and_measured_on_the_way_changes_nothing(demo: DiffusersDenoiser, tmp_path: Path):
    """Dropouts, an average that is swapped in, a schedule-free optimizer: all at once, with looks at every step."""
    sections = {
        "network": {"rank": 4, "rank_dropout": 0.2, "module_dropout": 0.2, "dropout": 0.2},
        "optimizer": {"name": "schedulefree_adamw", "ema": 0.9},
        "text_encoder": {"train": True, "until": 0.5},
        "run": {"steps": 4},
    }
    plain = small_runs.config(tmp_path, "plain", **sections)
    train(plain, denoiser=demo)

    busy = small_runs.config(
        tmp_path,
        "busy",
        **sections,
        samples={"prompts": ["thing 0"], "every": 1, "steps": 1},
        validation={"every": 1, "train_subset": 2, "prompts": ["something else"]},
        output={"save_every": 1},
    )
    train(busy, denoiser=demo)

    a, b = small_runs.last_state(plain), small_runs.last_state(busy)
    assert small_runs.differing(a.tensors, b.tensors) == []
    assert small_runs.losses_of(plain) == small_runs.losses_of(busy)
    assert small_runs.differing(small_runs.tensors_of(plain), small_runs.tensors_of(busy)) == []


def test_a_part_that_rests_stays_where_its_optimizer_is(demo: DiffusersDenoiser, tmp_path: Path):
    """On a GPU what is not trained leaves for the CPU, and an average over both places is none."""
    seen: list[bool] = []

    def set_mode(mode: str) -> None:
        if mode == "train":
            seen.append(any(one.requires_grad for one in demo.parts["text_encoder"].parameters()))
        demo.set_mode(mode)

    config = small_runs.config(
        tmp_path,
        text_encoder={"train": True, "until": 0.5},
        optimizer={"name": "schedulefree_adamw"},
        run={"steps": 2},
        samples={"prompts": ["thing 0"], "steps": 1, "first": False},
    )
    train(config, denoiser=small_runs.Wrapped(demo, set_mode=set_mode))

    assert seen == [True, True]  # before the steps, and after the last sample


def test_pictures_of_the_class_are_drawn_first_and_trained_on(demo: DiffusersDenoiser, tmp_path: Path):
    seen: list[str] = []

    def encode(captions: Sequence[str]) -> Conditions:
        seen.extend(captions)
        return demo.encode_text(captions)

    config = small_runs.config(
        tmp_path,
        data={"prior": {"generate": 2, "folder": str(tmp_path / "class"), "caption": "a thing", "weight": 0.5}},
        run={"steps": 2},
    )
    first = train(config, denoiser=small_runs.Wrapped(demo, encode_text=encode))

    assert sorted(file.name for file in (tmp_path / "class").iterdir()) == ["prior-00000.png", "prior-00001.png"]
    assert "a thing" in seen
    # Every second picture of a step is one of the class: two steps of two pictures see half of the four.
    assert first.report["epochs"] == 0.5
    assert train(config, denoiser=NotToBeUsed(demo)) == first  # type: ignore[arg-type]


class Order(Watcher):
    """The names of what it is told, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def stage(self, what: str, done: int, total: int) -> None:
        if done == 0:
            self.events.append(what)

    def progress(self, progress: Progress) -> None:
        self.events.append(f"step {progress.step}: loss")

    def validated(self, step: int, losses: Mapping[str, float]) -> None:
        self.events.append(f"step {step}: {', '.join(name for name in losses if ' ' not in name)}")

    def sampled(self, sampled: Sampled) -> None:
        self.events.append(f"step {sampled.step}: {len(sampled.pictures)} pictures")

    def saved(self, path: Path, step: int) -> None:
        self.events.append(f"step {step}: {path.name}")

    def noted(self, message: str) -> None:
        self.events.append(message.split(";")[0])


def test_what_a_watcher_is_told_and_when(demo: DiffusersDenoiser, tmp_path: Path):
    order = Order()

    train(
        small_runs.config(
            tmp_path,
            run={"steps": 4, "log_every": 2},
            samples={"prompts": ["thing 0", "thing 1"], "every": 2, "steps": 1},
            validation={"split": 0.3, "every": 2, "prompts": ["something else"]},
            output={"save_every": 2},
        ),
        watcher=order,
        denoiser=demo,
    )

    assert order.events == [
        "loading the model",
        "modules: 12 in denoiser",
        "caching latents",
        "caching text",
        "validating",
        "step 0: validation, train, leakage",
        "drawing samples",
        "step 0: 2 pictures",
        "training",
        "step 2: loss",
        "validating",
        "step 2: validation, train, leakage",
        "drawing samples",
        "step 2: 2 pictures",
        "saving",
        "step 2: ink-000002.safetensors",
        "step 4: loss",
        "validating",
        "step 4: validation, train, leakage",
        "drawing samples",
        "step 4: 2 pictures",
        "saving",
        "step 4: ink.safetensors",
    ]


def test_the_settings_of_a_run_lie_beside_it_and_give_the_same_run(demo: DiffusersDenoiser, tmp_path: Path):
    from lora_core.train.config import load_config

    config = small_runs.config(tmp_path, run={"steps": 2})
    result = train(config, denoiser=demo)

    again: TrainConfig = load_config(tmp_path / "out" / "ink.run" / "config.toml")

    assert again == config
    assert json.loads(json.dumps(result.report)) == result.report
    assert issubclass(NotAsTrainedError, TrainingStoppedError)
