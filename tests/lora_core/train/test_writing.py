"""LoRAs of a run as files: which weights, what they say of the run, and what is found before hours are spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

import small_runs
from lora_core.errors import LoomError
from lora_core.train import writing
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.events import Watcher
from lora_core.train.loop import train
from lora_core.train.output import NotAsTrainedError, save_embeddings
from lora_core.train.stops import DivergedError
from painted import paint_some


def said(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return opened.metadata()


def test_what_a_file_says_of_its_run(demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(
        tmp_path,
        run={"steps": 4, "accumulate": 2, "seed": 7},
        output={"save_every": 2, "title": "Ink"},
        samples={"prompts": ["thing 0"], "steps": 1},
    )
    result = train(config, denoiser=demo)

    early, late = said(small_runs.lora_of(config, 2)), said(small_runs.lora_of(config))
    assert (early["ss_steps"], late["ss_steps"]) == ("2", "4")
    assert early["ss_session_id"] == late["ss_session_id"]
    assert early["ss_training_started_at"] == late["ss_training_started_at"]
    assert (late["ss_seed"], late["ss_num_train_images"], late["modelspec.title"]) == ("7", "4", "Ink")
    assert float(late["loom.loss"]) == pytest.approx(result.loss, rel=1e-5)
    assert json.loads(late["loom.config"])["run"]["accumulate"] == 2
    # Of the last sample there was: before the first step, and after the last.
    assert early["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert early["modelspec.thumbnail"] != late["modelspec.thumbnail"]
    # Nothing of this machine.
    assert str(tmp_path) not in "".join(late.values())


def test_every_picture_is_counted_whatever_its_repeats_and_folder(demo: DiffusersDenoiser, tmp_path: Path):
    """Repeats of the rows of a table, and a folder of the class of the same name."""
    paint_some(tmp_path / "class" / "pictures", 2)
    config = small_runs.config(
        tmp_path, run={"steps": 2}, data={"prior": {"folder": str(tmp_path / "class" / "pictures")}}
    )
    rows = [{"file_name": f"p{n}.png", "text": "a thing", "repeats": 3 if n == 0 else 1} for n in range(4)]
    (tmp_path / "pictures" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")

    train(config, denoiser=demo)

    known = said(small_runs.lora_of(config))
    assert (known["ss_num_train_images"], known["ss_num_reg_images"]) == ("6", "2")
    assert sorted(one["img_count"] for one in json.loads(known["ss_dataset_dirs"]).values()) == [1, 3]
    # Half of the four draws are of the six that an epoch has.
    assert (known["ss_num_epochs"], known["ss_num_batches_per_epoch"]) == ("1", "6")


def test_embeddings_alone_are_compared_with_what_was_trained(
    demo: DiffusersDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def worse(embeddings: dict[str, dict[str, Tensor]], *rest: Any) -> tuple[Path, ...]:
        return save_embeddings({token: {"clip_l": one["clip_l"] + 1} for token, one in embeddings.items()}, *rest)

    monkeypatch.setattr(writing, "save_embeddings", worse)
    config = small_runs.config(
        tmp_path, data={"trigger": "<s1>"}, tokens={"names": ["<s1>"]}, network={"train": False}, run={"steps": 2}
    )
    with pytest.raises(NotAsTrainedError, match=r"ink.s1.safetensors: embedding <s1> of clip_l: read back, it is ano"):
        train(config, denoiser=demo)


def test_a_run_that_goes_on_is_the_same_session(demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(tmp_path)
    first = train(config, watcher=small_runs.CancelAt(2), denoiser=demo)
    assert first.path is not None
    train(config, denoiser=demo)

    early, late = said(first.path), said(small_runs.lora_of(config))
    assert early["ss_session_id"] == late["ss_session_id"]
    assert early["ss_training_started_at"] == late["ss_training_started_at"]
    assert "stopped at step 2 of 6" in early["ss_training_comment"]
    assert "stopped" not in late.get("ss_training_comment", "")


@pytest.mark.parametrize("optimizer", [{"ema": 0.5}, {"name": "schedulefree_adamw"}], ids=["ema", "schedule-free"])
def test_the_average_is_what_is_saved_and_drawn(optimizer: dict[str, Any], demo: DiffusersDenoiser, tmp_path: Path):
    """The last weights are in the state, the average is in the file, and samples are of the average."""
    config = small_runs.config(tmp_path, optimizer=optimizer)
    train(config, denoiser=demo)

    state = small_runs.last_state(config).tensors
    ups = {one.abs().sum().item() for name, one in state.items() if name.startswith("network.") and "lora_B" in name}
    saved = {one.abs().sum().item() for name, one in small_runs.tensors_of(config).items() if "lora_up" in name}
    assert len(ups) == len(saved) == 12
    assert not ups & saved


@pytest.mark.parametrize("format", ["kohya", "diffusers", "comfy", "peft"])
def test_every_format_is_compared_with_what_was_trained(format: str, demo: DiffusersDenoiser, tmp_path: Path):
    config = small_runs.config(tmp_path, run={"steps": 2}, output={"format": format}, text_encoder={"train": True})

    result = train(config, denoiser=demo)

    assert result.path is not None
    assert result.path.exists()
    assert result.report["checked_modules"] == 12 + 12
    # Stored in fp32, nothing is rounded but where scales go into factors.
    assert float(str(result.report["rounding"])) < 1e-6


def test_what_a_format_cannot_hold_is_said_before_the_first_step(demo: DiffusersDenoiser, tmp_path: Path):
    steps: list[int] = []

    class Counts(Watcher):
        def progress(self, progress: Any) -> None:
            steps.append(progress.step)

    config = small_runs.config(tmp_path, network={"type": "lokr"}, output={"format": "diffusers"})
    with pytest.raises(LoomError, match="diffusers"):
        train(config, watcher=Counts(), denoiser=demo)

    assert steps == []


def test_the_thumbnail_of_a_run_that_goes_on_is_its_last_sample(demo: DiffusersDenoiser, tmp_path: Path):
    drawn = {"prompts": ["thing 0"], "steps": 1, "first": False}
    first = small_runs.config(tmp_path, samples={**drawn, "every": 1})
    train(first, watcher=small_runs.CancelAt(2), denoiser=demo)
    assert Image.open(tmp_path / "out" / "ink.run" / "samples" / "ink-000001-0.png").size == (64, 64)
    of_the_first = said(small_runs.lora_of(first, 2))["modelspec.thumbnail"]

    then = small_runs.config(tmp_path, samples={**drawn, "every": 0}, output={"save_every": 3})
    train(then, denoiser=demo)

    assert said(small_runs.lora_of(then, 3))["modelspec.thumbnail"] == of_the_first
    assert said(small_runs.lora_of(then))["modelspec.thumbnail"] != of_the_first


def test_weights_that_are_no_numbers_are_not_written(demo: DiffusersDenoiser, tmp_path: Path):
    """Spoiled by the last step, whose own loss was fine."""
    config = small_runs.config(tmp_path, optimizer={"name": "sgd", "learning_rate": 1e38, "clip": 0})

    with pytest.raises((DivergedError, LoomError)) as caught:
        train(config, denoiser=demo)

    assert isinstance(caught.value, DivergedError)
    assert not list((tmp_path / "out").glob("*.safetensors"))
    assert torch.isfinite(next(demo.parts["denoiser"].parameters())).all()
