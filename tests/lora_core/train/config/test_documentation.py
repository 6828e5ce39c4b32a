"""docs/TRAINING.md says what the settings are: its tables are compared with the fields, its commands are tried."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from lora_core.train.config import PRESETS, Setting, load_config, parse_config, settings
from lora_core.train.config.keys import NEEDED, sections
from lora_core.train.config.other_names import OTHER_NAMES

PAGE = Path(__file__).resolve().parents[4] / "docs" / "TRAINING.md"
TEXT = PAGE.read_text("utf-8")


def value(default: Any) -> str:
    if default is NEEDED:
        return "needed"
    if default is None:
        return "none"
    if default in ("", {}):
        return "empty"
    text = tomli_w.dumps({"x": list(default) if isinstance(default, tuple) else default}, indent=0)
    return f"`{' '.join(text.removeprefix('x = ').split()).replace('[ ', '[').replace(', ]', ']')}`"


def row(setting: Setting) -> str:
    words = setting.description.replace("|", r"\|").replace("<", r"\<")
    return f"| `{setting.key}` | {setting.kind} | {value(setting.default)} | {words} |"


def tables() -> dict[str, list[str]]:
    """Heading -> rows below it, without the two of the table's head."""
    found: dict[str, list[str]] = {}
    for part in TEXT.split("\n### ")[1:]:
        heading = part.partition("\n")[0].strip("`[] ")
        found[heading] = re.findall(r"^\|.*\|$", part.split("\n## ")[0], flags=re.MULTILINE)[2:]
    return found


@pytest.mark.parametrize("section", sections())
def test_the_table_of_a_section_is_its_fields(section: str):
    assert tables()[section] == [row(setting) for setting in settings().values() if setting.section == section]


def test_the_presets_are_listed():
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \|", TEXT.split("## Presets")[1].split("\n## ")[0], flags=re.MULTILINE)

    assert dict(rows) == {name: preset.title for name, preset in PRESETS.items()}


def test_names_of_other_programs_are_not_in_the_page_as_settings():
    ours = {setting.key for setting in settings().values()}
    assert not (set(re.findall(r"^\| `(\w+)` \|", TEXT, flags=re.MULTILINE)) & set(OTHER_NAMES)) - ours


def sets() -> list[str]:
    return re.findall(r"--set (\S+)", TEXT)


def test_settings_in_examples_exist():
    from lora_core.train.config import override

    assert sets()
    for line in re.findall(r"^    (loom train .*)$", TEXT, flags=re.MULTILINE):
        words = shlex.split(line)
        override({}, [after for word, after in pairwise(words) if word == "--set"])


@pytest.mark.parametrize("number", range(TEXT.count("```toml")))
def test_files_in_examples_are_whole_and_right(number: int, tmp_path: Path):
    example = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)[number]
    (tmp_path / "run.toml").write_text(example)

    assert load_config(tmp_path / "run.toml").model.base


def test_named_settings_exist():
    """Words such as `network.rank` in the text."""
    named = re.findall(r"`((?:" + "|".join(s for s in sections() if "." not in s) + r")\.[a-z_.]+)(?: = [^`]+)?`", TEXT)

    assert named
    assert sorted(set(named) - set(settings())) == []


def test_every_preset_fits_the_page_of_settings():
    for name in PRESETS:
        parse_config({"preset": name, "model": {"base": "a"}, "data": {"folder": "p"}})
