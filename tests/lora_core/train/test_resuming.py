"""A run that goes on from its state ends with the numbers of one that was never interrupted, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import small_runs
from lora_core.train.config import TrainConfig
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.loop import train

Sections = dict[str, dict[str, Any]]


def assert_same_end(one: TrainConfig, other: TrainConfig) -> None:
    """Parameters, optimizer, schedule and average; the curve; the file."""
    a, b = small_runs.last_state(one), small_runs.last_state(other)
    assert a.step == b.step == one.run.steps
    assert small_runs.differing(a.tensors, b.tensors) == []
    for fact in ("optimizer", "schedule", "ema", "data", "loss"):
        assert a.facts.get(fact) == b.facts.get(fact), fact
    assert small_runs.losses_of(one) == small_runs.losses_of(other)
    assert len(small_runs.losses_of(one)) == one.run.steps
    assert small_runs.differing(small_runs.tensors_of(one), small_runs.tensors_of(other)) == []


def interrupted(folder: Path, demo: DiffusersDenoiser | None, at: int, **sections: Any) -> TrainConfig:
    """A run that was cancelled after some steps and called again."""
    config = small_runs.config(folder, "interrupted", **sections)
    first = train(config, watcher=small_runs.CancelAt(at), denoiser=demo)
    assert (first.finished, first.steps) == (False, at)
    assert first.path is not None
    assert first.path.is_file()
    second = train(config, denoiser=demo, resume="must")
    assert (second.finished, second.steps) == (True, config.run.steps)
    return config


def test_ten_steps_and_ten_more_are_twenty(demo: DiffusersDenoiser, tmp_path: Path):
    sections: Sections = {"run": {"steps": 20}, "optimizer": {"schedule": "cosine", "warmup": 2}}
    whole = small_runs.config(tmp_path, **sections)
    train(whole, denoiser=demo)

    halves = interrupted(tmp_path, demo, 10, **sections)

    assert_same_end(whole, halves)
    assert small_runs.rows_of(whole) == small_runs.rows_of(halves)


def test_a_finished_run_of_ten_steps_goes_on_to_twenty(demo: DiffusersDenoiser, tmp_path: Path):
    """With a schedule that does not know its end, it does not matter when the end was set."""
    whole = small_runs.config(tmp_path, run={"steps": 20})
    train(whole, denoiser=demo)

    ten = small_runs.config(tmp_path, "longer", run={"steps": 10})
    assert train(ten, denoiser=demo).steps == 10
    twenty = small_runs.config(tmp_path, "longer", run={"steps": 20})
    assert train(twenty, denoiser=demo).steps == 20

    assert_same_end(whole, twenty)
    assert small_runs.rows_of(whole) == small_runs.rows_of(twenty)


WORDS: Sections = {
    "data": {"trigger": "<s1> <s2>"},
    "tokens": {"names": ["<s1>", "<s2>"], "start": ["food", "<rand-0.017>"], "steps": 3},
}
DRAWN: dict[str, Any] = {
    "crop": "random",
    "flip": 0.5,
    "colour_jitter": 0.2,
    "caption_dropout": 0.3,
    "shuffle_tags": True,
    "tag_dropout": 0.3,
    "resolution": 48,
}
# Several things at once where each has a state, a seed or a file of its own: one that is lost would show all the same.
CASES: dict[str, Sections] = {
    "cosine with warm-up, checkpointing": {
        "optimizer": {"schedule": "cosine", "warmup": 1},
        "run": {"steps": 10, "checkpointing": True},
    },
    "prodigy, dora with dropout": {
        "optimizer": {"name": "prodigy", "learning_rate": 1.0},
        "network": {"type": "dora", "rank_dropout": 0.3},
    },
    "came, accumulation": {"optimizer": {"name": "came"}, "run": {"accumulate": 2, "batch": 1}},
    "adafactor, oft": {"optimizer": {"name": "adafactor"}, "network": {"type": "oft", "rank": 8}},
    "8-bit adamw": {"optimizer": {"name": "adamw8bit"}, "network": {"rank": 16, "targets": "attention+ff"}},
    "lion, ranks, modules and neurons sit out": {
        "optimizer": {"name": "lion", "learning_rate": 1e-4},
        "network": {"rank": 4, "rank_dropout": 0.3, "module_dropout": 0.3, "dropout": 0.2},
    },
    "8-bit lion, lora+": {
        "optimizer": {"name": "lion8bit", "learning_rate": 1e-4},
        "network": {"rank": 16, "lora_plus": 4},
    },
    "sgd with momentum, loha with dropouts": {
        "optimizer": {"name": "sgd", "options": {"momentum": 0.9}},
        "network": {"type": "loha", "rank_dropout": 0.3, "module_dropout": 0.3},
    },
    "schedule-free, average, pissa": {
        "optimizer": {"name": "schedulefree_adamw", "ema": 0.9},
        "network": {"start": "pissa"},
    },
    "bf16, olora": {"run": {"precision": "bf16"}, "network": {"start": "olora"}},
    "lokr, channels-last": {
        "network": {"type": "lokr", "conv_rank": 2, "targets": "attention+conv"},
        "run": {"channels_last": True},
    },
    "text encoder for half of the run": {"text_encoder": {"train": True, "until": 0.5, "learning_rate": 1e-3}},
    "text encoder to the end": {"text_encoder": {"train": True, "until": 1.0, "learning_rate": 1e-3}},
    "embeddings first": WORDS,
    "embeddings first, schedule-free": {**WORDS, "optimizer": {"name": "schedulefree_adamw"}},
    "embeddings, then adapters, past the change": {
        **WORDS,
        "tokens": {**WORDS["tokens"], "steps": 1, "keep_training": True},
    },
    "embeddings alone": {
        **WORDS,
        "tokens": {**WORDS["tokens"], "steps": 0},
        "network": {"train": False},
    },
    "crops, flips and captions that are drawn, noise and weights of timesteps": {
        "data": DRAWN,
        "objective": {
            **{"noise_offset": 0.1, "noise_offset_random": True, "multires_noise": 2, "input_perturbation": 0.1},
            **{"weighting": "min_snr", "loss": "huber", "huber_schedule": "snr", "timesteps": "logit_normal"},
        },
    },
}


@pytest.mark.parametrize("case", CASES)
def test_whatever_is_set_the_end_is_the_same(case: str, demo: DiffusersDenoiser, tmp_path: Path):
    """Four steps, and two and two."""
    sections = {**CASES[case], "run": {"steps": 4, **CASES[case].get("run", {})}}
    # What a model is loaded with, a run that is given one leaves to it.
    given = None if sections["run"].keys() & {"checkpointing", "channels_last"} else demo
    whole = small_runs.config(tmp_path, **sections)
    train(whole, denoiser=given)

    halves = interrupted(tmp_path, given, 2, **sections)

    assert_same_end(whole, halves)
