"""Settings that cannot work together are refused, each with a line that says what to change."""

from __future__ import annotations

from typing import Any

import pytest

from lora_core.errors import ConfigError
from lora_core.train.config import PRESETS, dump_config, override, parse_config, settings
from lora_core.train.config.toml import read_toml
from lora_core.train.config.unused import USES

SMALL: dict[str, Any] = {"model": {"base": "some/hub-id"}, "data": {"folder": "pictures"}}


def faults(*sets: str, preset: str = "") -> list[str]:
    try:
        parse_config(override(SMALL | {"preset": preset}, sets))
    except ConfigError as error:
        return list(error.faults)
    return []


CASES: dict[str, tuple[list[str], str]] = {
    "noise alone": (
        ["model.zero_terminal_snr=true", "model.prediction=epsilon"],
        'model.zero_terminal_snr: from pure noise epsilon says nothing of the picture; it needs prediction = "v"',
    ),
    "pissa of few bits": (["model.quantise=int8", "network.start=pissa"], "network.start: pissa changes the weights"),
    "no pixels": (["data.resolution=[0, 64]"], "data.resolution: expected at least 8 pixels, got 0"),
    "class pictures of nothing": (["data.prior.generate=3"], "data.prior.generate: needs data.prior.caption"),
    "two validations": (["validation.split=0.1", "validation.folder=v"], "validation.split: validation.folder has"),
    "past the schedule": (["validation.timesteps=[400.0]"], "validation.timesteps: expected fractions from 0 to 1"),
    "no timesteps": (["validation.timesteps=[]"], "validation.timesteps: is empty"),
    "nothing to measure": (
        ["validation.every=5", "validation.train_subset=0"],
        "validation.every: there is nothing to measure; give validation.split or validation.folder",
    ),
    "nothing to train": (["network.train=false"], "network.train: is false, and nothing else trains"),
    "a start of loha": (
        ["network.type=loha", "network.start=pissa"],
        "network: start pissa is for lora and dora; loha has a",
    ),
    "lora+ of lokr": (["network.type=lokr", "network.lora_plus=16"], "network: lora_plus is for lora and dora, which"),
    "convolutions of oft": (["network.type=oft", "network.conv_rank=4"], "network: oft has one size of blocks"),
    "a factor of lora": (["network.decompose_factor=8"], "network.decompose_factor: is for lokr, not for lora"),
    "a factor of 0": (
        ["network.type=lokr", "network.decompose_factor=0"],
        "network.decompose_factor: expected -1 or at least 1, got 0",
    ),
    "two starts": (
        ["network.continue_from=a.safetensors", "network.start=olora"],
        "network: continue_from has values already",
    ),
    "lora+ with prodigy": (
        ["network.lora_plus=16", "optimizer.name=prodigy", "optimizer.learning_rate=1"],
        "network.lora_plus: prodigy has one learning rate for all; leave it out",
    ),
    "a word for modules": (["network.targets=attention+fff"], "network.targets: no group of modules named 'fff': did"),
    "no modules": (["network.targets=[]"], "network.targets: is empty; give words such as attention+ff"),
    "an expression": (
        ["text_encoder.train=true", "text_encoder.targets=regex:("],
        "text_encoder.targets: '(' is no regular expression",
    ),
    "what to leave out": (["network.exclude=['[']"], "network.exclude: '[' is no regular expression"),
    "starts of nothing": (["tokens.start=['dog']"], "tokens.start: needs tokens.names"),
    "steps of nothing": (["tokens.steps=10"], "tokens.steps: needs tokens.names"),
    "templates of nothing": (["tokens.templates=style"], "tokens.templates: needs tokens.names"),
    "a word twice": (["tokens.names=['<a>', '<a>']"], "tokens.names: '<a>' is there twice"),
    "two words in one": (["tokens.names=['a dog']"], "tokens.names: expected words without spaces, got 'a dog'"),
    "a start too few": (
        ["tokens.names=['<a>', '<b>']", "tokens.start=['dog']"],
        "tokens.start: expected one for each of the 2 words of tokens.names, got 1",
    ),
    "embeddings to the end": (
        ["tokens.names=['<a>']", "tokens.steps=1000"],
        "tokens.steps: the embeddings alone train for all 1000 steps of the run",
    ),
    "nothing after embeddings": (
        ["tokens.names=['<a>']", "tokens.steps=10", "network.train=false"],
        "tokens.steps: nothing trains after step 10 of 1000",
    ),
    "from late to early": (["objective.timestep_range=[0.8, 0.2]"], "objective.timestep_range: expected the smaller"),
    "prodigy at adam's rate": (
        ["optimizer.name=prodigy"],
        "optimizer.learning_rate: prodigy finds the learning rate, and this is a factor on it; expected about 1",
    ),
    "prodigy of a text encoder": (
        ["optimizer.name=prodigy", "optimizer.learning_rate=1", "text_encoder.train=true"],
        "text_encoder.learning_rate: prodigy finds the learning rate",
    ),
    "adam at prodigy's rate": (["optimizer.learning_rate=1"], "optimizer.learning_rate: 1 is for prodigy; adamw needs"),
    "a schedule of none": (
        ["optimizer.name=schedulefree_adamw", "optimizer.schedule=cosine"],
        "optimizer.schedule: schedulefree_adamw has none",
    ),
    "betas of came": (
        ["optimizer.name=came", "optimizer.betas=[0.9, 0.999]"],
        "optimizer.betas: expected 3 numbers for came, got 2",
    ),
    "a beta of 1": (["optimizer.betas=[0.9, 1.0]"], "optimizer.betas: expected numbers from 0 to below 1, got 1"),
    "a device": (
        ["run.device=CUDA"],
        "run.device: expected auto, cpu, cuda, cuda:1 or mps, got 'CUDA'; did you mean 'cuda'?",
    ),
    "fp16 on a CPU": (["run.device=cpu", "run.precision=fp16"], "run.precision: fp16 is for GPUs"),
    "weights of few bits": (
        ["model.dtype=bf16"],
        "run.precision: weights in bf16 (model.dtype) are computed with in bf16",
    ),
    "samples of nothing": (["samples.every=10"], "samples.every: there is nothing to draw; give samples.prompts"),
    "an odd width": (["samples.width=100"], "samples.width: expected a multiple of 8, got 100"),
    "a format": (["output.format=kohia"], "output.format: expected kohya"),
    "a suffix": (["output.name=ink.safetensors"], "output.name: expected a name without .safetensors"),
    "files of none": (["output.keep=2"], "output.keep: needs output.save_every, which is 0"),
    "no effect": (["objective.shift=3.0"], "objective.shift: has no effect; it is for objective.timesteps shift"),
    "an eps of lion": (
        ["optimizer.name=lion", "optimizer.eps=1e-6", "optimizer.learning_rate=1e-5"],
        "optimizer.eps: has no effect; it is for optimizers that have one: adamw",
    ),
    "a warm-up to nowhere": (
        ["optimizer.schedule=constant", "optimizer.warmup=50"],
        "optimizer.warmup: has no effect; it is for other schedules than constant",
    ),
    "tags that stay anyway": (["data.keep_tokens=2"], "data.keep_tokens: has no effect; it is for data.shuffle_tags"),
    "a floor of no masks": (["data.mask_floor=0.5"], "data.mask_floor: has no effect; it is for data.masks"),
    "steps of no buckets": (["data.buckets=false", "data.bucket_step=32"], "data.bucket_step: has no effect"),
    "rows of no folder": (["validation.select={of='x'}"], "validation.select: has no effect; it is for validation."),
    "a decay of nothing": (["tokens.norm_decay=0.5"], "tokens.norm_decay: has no effect; it is for tokens.names"),
    "modules of no text encoder": (["text_encoder.targets=all"], "text_encoder.targets: has no effect"),
    "no text encoder": (["text_encoder.rank=4"], "text_encoder.rank: has no effect; it is for text_encoder.train"),
    "alpha of oft": (
        ["network.type=oft", "network.alpha=8.0"],
        "network.alpha: has no effect; it is for other types than oft",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_alone(case: str):
    sets, wanted = CASES[case]
    (fault,) = faults(*sets)
    assert fault.startswith(wanted)


def test_faults_of_all_tables_come_at_once():
    assert len(faults("samples.every=1", "output.keep=2", "model.dtype=fp16", "objective.gamma=3.0")) == 4


@pytest.mark.parametrize(
    "sets",
    [
        ["tokens.names=['<a>']", "network.train=false"],
        ["tokens.names=['<a>']", "tokens.steps=10", "network.train=false", "tokens.keep_training=true"],
        ["network.train=false", "text_encoder.train=true"],
        ["validation.every=5"],  # on the training subset
        ["network.targets=regex:to_q$", "network.exclude=['up_blocks']"],
        ["optimizer.name=prodigy", "optimizer.learning_rate=0.5"],
        ["optimizer.name=sgd", "optimizer.learning_rate=1.0"],
        ["optimizer.name=came", "optimizer.betas=[0.9, 0.999, 0.9999]"],
        ["model.dtype=bf16", "run.precision=bf16"],
        ["run.device=cuda:1", "run.precision=fp16"],
    ],
)
def test_what_works_is_let_through(sets: list[str]):
    assert faults(*sets) == []


def test_what_a_preset_sets_and_a_change_makes_useless_is_no_fault():
    assert faults("objective.weighting=none", preset="sdxl-style") == []
    assert faults("network.type=oft", preset="sdxl-subject") == []
    assert faults("objective.weighting=none", "objective.gamma=2.0", preset="sdxl-style") == [
        "objective.gamma: has no effect; it is for objective.weighting min_snr or soft_min_snr"
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_let_through_is_so_when_written_and_read_again(preset: str):
    config = parse_config(override(SMALL | {"preset": preset}, ["objective.timesteps=cubic", "network.conv_rank=0"]))
    assert parse_config(read_toml(dump_config(config))) == config


def test_uses_are_of_settings():
    assert set(USES) <= set(settings())
