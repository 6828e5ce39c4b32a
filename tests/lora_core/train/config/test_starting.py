"""The files that ``--init`` writes: complete, true, and one step from a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lora_core.errors import ConfigError, UnknownNameError
from lora_core.train.config import PRESETS, load_config, parse_config, settings
from lora_core.train.config.starting import WIDTH, starting_toml
from lora_core.train.config.toml import read_toml

GIVEN = ["model.base=a/b", "data.folder=pictures"]


@pytest.mark.parametrize("preset", PRESETS)
def test_it_is_the_preset_and_uncommenting_changes_nothing(preset: str):
    text = starting_toml(preset, GIVEN)
    wanted = parse_config({"preset": preset, "model": {"base": "a/b"}, "data": {"folder": "pictures"}})

    uncommented = re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)

    assert parse_config(read_toml(text)) == wanted
    assert parse_config(read_toml(uncommented)) == wanted
    assert uncommented != text


def test_every_setting_is_there_with_its_description():
    text = " ".join(re.sub(r"^## ", "", starting_toml("sd15-style"), flags=re.MULTILINE).split())

    for setting in settings().values():
        assert re.search(rf"(^| ){setting.key} (=|has)", text), setting.name
        if setting.name != "preset":
            assert setting.description, f"{setting.name} has no description"
            assert setting.description in text, setting.name


def test_lines_are_not_long():
    assert max(len(line) for line in starting_toml("pivotal").splitlines()) <= WIDTH


def test_what_alpha_does_is_said_where_it_is_set():
    text = starting_toml("sdxl-subject")

    assert (
        "[network]\n## Alpha 8 / rank 16: the change is scaled by 0.5, so learning rate 0.0001 acts as 5e-05 would at "
        "scale 1.\n"
    ) in text


def test_settings_that_are_given_stand_uncommented(tmp_path: Path):
    text = starting_toml("sdxl-subject", [*GIVEN, "network.rank=32", "samples.prompts=['a \"cat\"']"])

    assert "\nrank = 32" in text
    assert "\nprompts = ['a \"cat\"']" in text or '\nprompts = ["a \\"cat\\""]' in text
    assert "Alpha 8 / rank 32: the change is scaled by 0.25" in text
    (tmp_path / "run.toml").write_text(text)
    assert load_config(tmp_path / "run.toml").network.rank == 32


def test_as_it_is_it_lacks_what_only_the_user_has():
    with pytest.raises(ConfigError) as caught:
        parse_config(read_toml(starting_toml("paper")))
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["data.folder", "model.base"]


def test_a_wrong_name_has_a_near_one():
    with pytest.raises(UnknownNameError, match="did you mean 'sdxl-style'"):
        starting_toml("sdxl-styl")
    with pytest.raises(ConfigError, match=r"network\.rnak: no such setting"):
        starting_toml("paper", ["network.rnak=3"])
