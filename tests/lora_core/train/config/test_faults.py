"""What users are told of wrong settings: every fault at once, with what to write in its place."""

from __future__ import annotations

from typing import Any

import pytest

from lora_core.errors import ConfigError
from lora_core.train.config import parse_config, settings
from lora_core.train.config.keys import NEEDED, sections
from lora_core.train.config.other_names import OTHER_NAMES

SMALL: dict[str, Any] = {"model": {"base": "some/hub-id"}, "data": {"folder": "pictures"}}


def faults(values: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(values, where="run.toml")
    assert caught.value.message.startswith("run.toml: ")
    return list(caught.value.faults)


def test_an_empty_file_lacks_two_things():
    assert faults({}) == [
        "data.folder: is missing; give the folder with the pictures",
        "model.base: is missing; give the folder of a diffusers pipeline, a hub id, or a single-file checkpoint",
    ]


def test_all_faults_come_at_once():
    found = faults(SMALL | {"network": {"rnak": 3, "rank": 0}, "netwrok": {}, "run": {"steps": "many"}, "samples": 3})
    assert found == [
        "network.rank: expected at least 1, got 0",
        "network.rnak: no such setting; did you mean network.rank?",
        "run.steps: expected a whole number, got 'many'",
        "samples: expected a table [samples], got 3",
        "netwrok: no such setting; did you mean network?",
    ]


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "another section's": (
        {"samples": {"repeats": 3}},
        "samples.repeats: no such setting; did you mean data.repeats?",
    ),
    "without its section": ({"rank": 3}, "rank: no such setting; did you mean network.rank or text_encoder.rank?"),
    "another program's": (
        {"network": {"network_dim": 3}},
        "network.network_dim: no such setting; here it is network.rank",
    ),
    "like nothing": ({"samples": {"zzz": 3}}, "samples.zzz: no such setting; [samples] has prompts, negative, every"),
    "a choice": (
        {"optimizer": {"name": "AdamW"}},
        "optimizer.name: expected adamw, adamw8bit, prodigy, lion, lion8bit, adafactor, schedulefree_adamw, came or sgd"
        ", got 'AdamW'; did you mean 'adamw'?",
    ),
    "two kinds": ({"network": {"targets": 3}}, "network.targets: expected text or list of texts, got 3"),
    "text for a list": ({"samples": {"prompts": "cat"}}, "samples.prompts: expected a list of texts, got 'cat'"),
    "a wrong item": ({"samples": {"prompts": ["cat", 3]}}, "samples.prompts: expected a list of texts, got 3 in it"),
    "one of two": (
        {"data": {"resolution": [512], "folder": "p"}},
        "data.resolution: expected a list of 2 whole numbers, got [512]",
    ),
    "three of two": (
        {"data": {"resolution": [1, 2, 3], "folder": "p"}},
        "data.resolution: expected a list of 2 whole numbers, got [1, 2, 3]",
    ),
    "true for a number": ({"run": {"steps": True}}, "run.steps: expected a whole number, got true"),
    "text for a number": ({"run": {"steps": "5"}}, "run.steps: expected a whole number, got '5'"),
    "a part of a number": ({"run": {"batch": 1.5}}, "run.batch: expected a whole number, got 1.5"),
    "number for a switch": ({"run": {"compile": 1}}, "run.compile: expected true or false, got 1"),
    "not a number": (
        {"optimizer": {"learning_rate": float("nan")}},
        "optimizer.learning_rate: expected a finite number, got nan",
    ),
    "infinite": ({"objective": {"gamma": float("inf")}}, "objective.gamma: expected a finite number, got inf"),
    "a share": ({"data": {"flip": 1.5, "folder": "p"}}, "data.flip: expected at most 1, got 1.5"),
    "none of it": ({"optimizer": {"eps": 0.0}}, "optimizer.eps: expected more than 0, got 0.0"),
    "no base": (
        {"model": {"base": ""}},
        "model.base: is empty; give the folder of a diffusers pipeline, a hub id, or a single-file checkpoint",
    ),
    "a preset": ({"preset": "sdlx-style"}, "preset: no preset named 'sdlx-style': did you mean 'sdxl-style'?"),
    "a folder in a name": ({"output": {"name": "a/b"}}, "output.name: expected a name without / and \\, got 'a/b'"),
    "an empty name": ({"output": {"name": ""}}, "output.name: is empty; give the name of the file"),
    "a block": (
        {"network": {"block_ranks": {"mid": -1}}},
        "network.block_ranks: ranks are 0 or more, got less for mid",
    ),
    "a table for a word": (
        {"network": {"type": {}}},
        "network.type: expected lora, dora, loha, lokr or oft, got a table",
    ),
    "a long value": ({"run": {"seed": "x" * 200}}, f"run.seed: expected a whole number, got '{'x' * 56}..."),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_says_what_to_write(case: str):
    values, wanted = CASES[case]
    (fault,) = faults(SMALL | values)
    assert fault.startswith(wanted)


def test_names_of_other_programs_lead_to_settings():
    for theirs, ours in OTHER_NAMES.items():
        assert ours.split(" ")[0].rstrip(":,") in settings(), theirs
        assert theirs not in {setting.key for setting in settings().values()}, "it is one of ours"


def test_settings_are_listed_with_words_for_their_kinds():
    assert settings()["model.base"].default is NEEDED
    assert settings()["network.alpha"].kind == "number"
    assert settings()["data.prior.weight"].default == 1.0
    assert settings()["objective.loss"].choices == ("l2", "l1", "huber", "smooth_l1")
    assert sections() == (
        *("model", "data", "data.prior", "validation", "network", "text_encoder", "tokens", "objective"),
        *("optimizer", "run", "samples", "output"),
    )
