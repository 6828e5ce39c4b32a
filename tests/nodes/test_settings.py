"""What the inputs of LoRA Train Settings mean for the engine, and which faults are found there."""

from __future__ import annotations

import importlib
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lora_core.train.config import PRESETS, settings


@pytest.fixture
def pack(files: ModuleType) -> Any:
    names = ("rows", "values", "check", "table", "text")
    nodes = files.__name__.rpartition(".")[0]
    return SimpleNamespace(**{name: importlib.import_module(f"{nodes}._settings_{name}") for name in names})


def test_every_setting_is_an_input_of_one_node_or_named_as_another_things(pack: Any) -> None:
    training = {row.name for row in pack.rows.rows().values()}
    data = {row.name for row in pack.rows.data_rows().values()}
    left = set(settings()) - training - data

    assert not training & data
    assert {name for name in left if not pack.rows.elsewhere(name)} == set()
    assert {name for name in left if name.startswith(("data.", "validation."))} == {
        "data.folder", "data.resolution", "data.cache", "data.prior.generate",
    }  # fmt: skip
    # Two settings with one input's name would have shrunk the tables.
    assert len(training) + len(data) + len(left) == len(settings())
    assert set(pack.rows.MAIN) <= set(pack.rows.rows())
    assert set(pack.rows.MAIN_DATA) <= set(pack.rows.data_rows())


def test_presets_that_train_new_words_are_left_out(pack: Any) -> None:
    assert list(pack.table.table().presets) == list(PRESETS)


def test_what_is_left_alone_is_not_set(pack: Any) -> None:
    alone = {
        name: row.unset if row.is_number else pack.values.PRESET if row.choices else ""
        for name, row in pack.rows.rows().items()
    }
    alone["text_encoder_train"] = pack.values.PRESET

    assert pack.values.values_of(pack.rows.rows(), alone) == {}


def test_what_is_set_is_as_toml_has_it(pack: Any) -> None:
    given = {
        "network_alpha": 8.0,
        "network_targets": "to_q, to_k",
        "network_exclude": r"attn\d{1,2}",
        "network_block_ranks": 'down.0 = 8, "mid" = 4\nup.1=2',
        "network_decompose_factor": 4,
        "text_encoder_train": "yes",
        "text_encoder_targets": "regex:a,b",
        "objective_timestep_mean": -1.0,
        "optimizer_betas": "[0.9, 0.99]",
        "optimizer_options": "decouple = true, beta3 = 0.5\nmode = 'a b'",
        "optimizer_warmup": 0,
        "run_checkpointing": "no",
        "samples_prompts": "a cat, sitting\n\n a dog ",
        "output_tags": "ink, dry brush",
        "output_title": " Ink ",
    }

    assert pack.values.values_of(pack.rows.rows(), given) == {
        "network": {
            "alpha": 8.0,
            "targets": ["to_q", "to_k"],
            "exclude": [r"attn\d{1,2}"],
            "block_ranks": {"down.0": 8, "mid": 4, "up.1": 2},
            "decompose_factor": 4,
        },
        "text_encoder": {"train": True, "targets": "regex:a,b"},
        "objective": {"timestep_mean": -1.0},
        "optimizer": {
            "betas": [0.9, 0.99],
            "options": {"decouple": True, "beta3": 0.5, "mode": "a b"},
            "warmup": 0,
        },
        "run": {"checkpointing": False},
        "samples": {"prompts": ["a cat, sitting", "a dog"]},
        "output": {"tags": ["ink", "dry brush"], "title": "Ink"},
    }


def test_values_of_metadata_columns_stay_texts(pack: Any) -> None:
    found = pack.values.values_of(pack.rows.data_rows(), {"select": "split=train, group = !Food & Drink\nn = 1"})
    assert found == {"data": {"select": {"split": "train", "group": "!Food & Drink", "n": "1"}}}


def test_texts_that_cannot_be_read_are_all_named(pack: Any) -> None:
    given = {"optimizer_betas": "0.9 0.99", "network_block_ranks": "down.0", "optimizer_options": "a=1\na=2"}
    with pytest.raises(ValueError, match=r"^settings: ") as caught:
        pack.values.values_of(pack.rows.rows(), given)

    assert list(caught.value.faults) == [  # type: ignore[attr-defined]
        "optimizer_betas: expected numbers, got '0.9 0.99'",
        "network_block_ranks: expected name = value, got 'down.0'",
        "optimizer_options: 'a' is there twice",
    ]


@pytest.mark.parametrize("preset", ["auto-style", "auto-character", "sdxl-style", "loom_demo-subject", "paper"])
def test_a_preset_alone_is_fine(pack: Any, preset: str) -> None:
    pack.check.check(preset, {})


@pytest.mark.parametrize(
    ("preset", "values", "faults"),
    [
        (
            "auto-style",
            {"network": {"alpha": -3.0}, "run": {"batch": 0}},
            ["network_alpha: expected more than 0, got -3.0", "run_batch: expected at least 1, got 0"],
        ),
        # min-SNR is SDXL's preset's and not SD 1.5's: of auto nobody knows yet.
        ("auto-style", {"objective": {"gamma": 3.0}}, []),
        ("sdxl-style", {"objective": {"gamma": 3.0}}, []),
        (
            "sd15-style",
            {"objective": {"gamma": 3.0}},
            ["objective_gamma: has no effect; it is for objective_weighting min_snr or soft_min_snr"],
        ),
        # The learning rate that prodigy needs is LoRA Train's to give, the text encoders' is not.
        ("auto-style", {"optimizer": {"name": "prodigy"}}, []),
        (
            "auto-style",
            {"optimizer": {"name": "prodigy"}, "text_encoder": {"train": True, "learning_rate": 1e-4}},
            [
                "text_encoder_learning_rate: prodigy finds the learning rate, and this is a factor on it; expected "
                "about 1, got 0.0001"
            ],
        ),
        ("auto-style", {"output": {"keep": 2, "save_every": 0}}, ["output_keep: needs output_save_every, which is 0"]),
        ("sdxl-style", {"run": {"precision": "fp32"}}, []),
        (
            "sdxl-style",
            {"output": {"format": "peft"}},
            ["output_format: peft is a folder, which the list of LoRAs does not show; choose another"],
        ),
    ],
)
def test_faults_have_the_names_of_inputs(pack: Any, preset: str, values: Any, faults: list[str]) -> None:
    if not faults:
        pack.check.check(preset, values)
        return
    with pytest.raises(ValueError, match=r"^LoRA Train Settings: ") as caught:
        pack.check.check(preset, values)
    assert list(caught.value.faults) == faults  # type: ignore[attr-defined]


def test_more_is_toml_or_lines(pack: Any) -> None:
    toml = "[network]\nalpha = 3\n[network.block_ranks]\n'down.0' = 2\n"
    lines = "# as on the command line\nnetwork.alpha = 3\noptimizer.name = lion\n"

    assert pack.check.more_values("") == {}
    assert pack.check.more_values(toml) == {"network": {"alpha": 3, "block_ranks": {"down.0": 2}}}
    assert pack.check.more_values(lines) == {"network": {"alpha": 3}, "optimizer": {"name": "lion"}}
    assert pack.check.over({"network": {"alpha": 1.0, "rslora": True}}, {"network": {"alpha": 3}}) == {
        "network": {"alpha": 3, "rslora": True}
    }


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("network.alhpa = 3", r"network.alhpa: no such setting; did you mean network.alpha\?"),
        ("[netwrok]\nalpha = 3", "netwrok.alpha: no such setting"),
        ("hello", "'hello': expected key=value"),
        ("run.steps = 3", "run.steps: is what LoRA Train sets; leave it out"),
        ("data.folder = '/etc'", "data.folder: is an input of LoRA Dataset; leave it out"),
        ("model.base = 'x'\nrun.steps = 4", r"model.base: is what .*; run.steps: is what LoRA Train sets"),
        ("preset = 'paper'", "preset: is the input preset"),
    ],
)
def test_more_is_checked(pack: Any, more: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^more: {said}"):
        pack.check.more_values(more)
