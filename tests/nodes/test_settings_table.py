"""``nodes/_settings_table.json`` says what the engine says."""

from __future__ import annotations

import importlib
import json
import os
from types import ModuleType
from typing import Any

import pytest

from lora_core.train.config import PRESETS, settings


@pytest.fixture
def module(files: ModuleType) -> Any:
    return importlib.import_module(f"{files.__name__.rpartition('.')[0]}._settings_table")


def test_the_file_is_the_engines(module: Any) -> None:
    there = json.loads(module.FILE.read_text("utf-8")) if module.FILE.is_file() else {"settings": []}
    wanted = module.engine_table(tuple(row["name"] for row in there["settings"]))
    if os.environ.get("LOOM_WRITE"):
        module.FILE.write_text(json.dumps(wanted, indent=2, ensure_ascii=False) + "\n", "utf-8")
        there = wanted

    assert there == wanted, "the engine's settings changed: run this test with LOOM_WRITE=1"
    assert {row["name"] for row in there["settings"]} == set(settings()) - {"preset"}


def test_what_stands_for_unset_is_no_value_of_a_preset(module: Any) -> None:
    """Else a user could not choose it."""
    for row in module.table().rows.values():
        section, _, key = row.name.rpartition(".")
        if row.is_number and row.unset == 0:
            assert all(key not in preset.values.get(section, {}) for preset in PRESETS.values()), row.name


def test_a_number_below_zero_can_be_given_where_it_means_something(module: Any) -> None:
    rows = module.table().rows
    negative = {row.name for row in rows.values() if row.is_number and row.unset == 0}
    assert negative == {"network.decompose_factor", "objective.timestep_mean"}
    assert rows["optimizer.ema"].most == rows["data.flip"].most == 1
    assert rows["text_encoder.learning_rate"].step == 1e-7
