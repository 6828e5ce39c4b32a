"""``train`` from settings to files: what it writes and says on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import small_runs
from lora_core.errors import ConfigError
from lora_core.train.config import TrainConfig
from lora_core.train.denoiser import Conditions
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.events import Progress, Sampled, Watcher
from lora_core.train.loop import Resume, train
from lora_core.train.output.checking import NotAsTrainedError
from lora_core.train.stops import (
    TrainingStoppedError,
)


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
        train(
            config, denoiser=small_runs.Wrapped(demo, predict=small_runs.fails_at(demo, 5, RuntimeError("power cut")))
        )

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
    assert train(config, denoiser=small_runs.NotToBeUsed(demo)) == first  # type: ignore[arg-type]


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
