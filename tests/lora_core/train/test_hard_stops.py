"""What stops a run: what a model does wrong, no memory, a full disk; and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import small_runs
from lora_core.errors import ConfigError
from lora_core.train.data.encoding import LatentsError
from lora_core.train.denoiser import Conditions, Latents
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.loop import train
from lora_core.train.output import saving
from lora_core.train.output.checking import NotAsTrainedError
from lora_core.train.stops import (
    DivergedError,
    NotLearningError,
    OutOfMemoryError,
)
from painted import Told, paint_some


class Backwards(torch.autograd.Function):
    """What it is given; its gradient is not a number."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * float("nan")


def spoils_one_picture(demo: DiffusersDenoiser) -> small_runs.Predict:
    theirs = demo.encode_text(["thing 2"])["text"][0]

    def predict(noisy: Tensor, timesteps: Tensor, conditions: Conditions, sizes: Tensor) -> Tensor:
        made = demo.predict(noisy, timesteps, conditions, sizes)
        its = torch.stack([torch.equal(row, theirs) * torch.ones(1, 1, 1) for row in conditions["text"]]) > 0
        return made.masked_fill(its, float("nan"))

    return predict


def spoils_gradients(demo: DiffusersDenoiser) -> small_runs.Predict:
    return lambda *arguments: Backwards.apply(demo.predict(*arguments))  # type: ignore[no-untyped-call]


def test_a_loss_that_is_no_number_names_its_picture(demo: DiffusersDenoiser, tmp_path: Path):
    before = small_runs.good_run(tmp_path, demo)

    with pytest.raises(DivergedError) as caught:
        train(small_runs.config(tmp_path), denoiser=small_runs.Wrapped(demo, predict=spoils_one_picture(demo)))

    assert caught.value.pictures == ("p2.png",)
    assert "the loss is nan for p2.png" in str(caught.value)
    assert small_runs.contents(tmp_path / "out") == before


def test_a_gradient_that_is_no_number_behind_a_loss_that_is_one(demo: DiffusersDenoiser, tmp_path: Path):
    before = small_runs.good_run(tmp_path, demo)

    with pytest.raises(DivergedError, match="step 3: the gradient is nan for p"):
        train(small_runs.config(tmp_path), denoiser=small_runs.Wrapped(demo, predict=spoils_gradients(demo)))

    assert small_runs.contents(tmp_path / "out") == before


@pytest.mark.parametrize("every", ["save_every", "state_every"])
def test_nothing_is_written_of_steps_whose_loss_nobody_looked_at_yet(
    every: str, demo: DiffusersDenoiser, tmp_path: Path
):
    """A look every ten steps, a file after each: the spoiled ones are not among them."""
    before = small_runs.good_run(tmp_path, demo)

    with pytest.raises(DivergedError):
        train(
            small_runs.config(tmp_path, run={"log_every": 10}, output={every: 1}),
            denoiser=small_runs.Wrapped(demo, predict=spoils_gradients(demo)),
        )

    assert small_runs.contents(tmp_path / "out") == before


def test_after_a_stop_the_same_command_goes_on_as_if_nothing_had_been(demo: DiffusersDenoiser, tmp_path: Path):
    small_runs.good_run(tmp_path, demo)
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
    before = small_runs.good_run(tmp_path, demo)
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
    assert small_runs.contents(tmp_path / "out")[lora] == before[lora]
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


def test_without_memory_the_steps_so_far_are_kept(demo: DiffusersDenoiser, tmp_path: Path):
    predict = small_runs.fails_at(demo, 3, torch.OutOfMemoryError("CUDA out of memory"))
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
    predict = small_runs.fails_at(demo, 1, torch.OutOfMemoryError("CUDA out of memory"))

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
