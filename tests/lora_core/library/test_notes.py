"""Notes into the sidecars that are there: the fields of each program, and nothing else of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.errors import ConfigError, CorruptFileError
from lora_core.library.notes import read_fields, write_notes
from lora_core.sidecars import read_sidecars

ALL = {"notes": "mine", "strength": 0.8, "trigger_words": ["ink style", "(bold, black:1.2)"]}


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    path = tmp_path / "ink.v1.safetensors"
    path.write_bytes(b"never touched")
    return path


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


def put(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), "utf-8")
    return path


def test_without_a_sidecar_it_is_a1111s(lora: Path) -> None:
    assert write_notes(lora, read_fields(ALL)) == ["ink.v1.json"]
    assert read(lora.with_name("ink.v1.json")) == {
        "description": "", "activation text": "ink style, (bold, black:1.2)", "preferred weight": 0.8,
        "negative text": "", "notes": "mine",
    }  # fmt: skip
    assert lora.read_bytes() == b"never touched"
    found = read_sidecars(lora)
    assert (found.user_notes, found.strength, list(found.trigger_words)) == ("mine", 0.8, ALL["trigger_words"])


def test_nothing_to_say_makes_no_file(lora: Path) -> None:
    assert write_notes(lora, read_fields({"notes": "", "strength": None, "trigger_words": []})) == []
    assert os.listdir(lora.parent) == [lora.name]


def test_lora_managers_fields(lora: Path) -> None:
    before = {
        "file_name": "ink", "base_model": "SDXL", "tags": ["é"], "usage_tips": '{"strength_min": 0.5, "strength": 1}',
        "civitai": {"id": 7, "trainedWords": ["old"]}, "notes": "",
    }  # fmt: skip
    place = put(lora.with_name("ink.v1.metadata.json"), before)
    assert write_notes(lora, read_fields(ALL)) == ["ink.v1.metadata.json"]
    after = read(place)
    assert json.loads(after.pop("usage_tips")) == {"strength_min": 0.5, "strength": 0.8}
    assert after == {
        "file_name": "ink", "base_model": "SDXL", "tags": ["é"],
        "civitai": {"id": 7, "trainedWords": ALL["trigger_words"]}, "notes": "mine",
    }  # fmt: skip
    assert "é" in place.read_text("utf-8")
    found = read_sidecars(lora)
    assert (found.user_notes, found.strength, found.strength_min) == ("mine", 0.8, 0.5)
    assert list(found.trigger_words) == ALL["trigger_words"]
    write_notes(lora, read_fields({"strength": None}))
    assert json.loads(read(place)["usage_tips"]) == {"strength_min": 0.5}


def test_rgthrees_fields_and_a_strength_that_it_has_no_place_for(lora: Path) -> None:
    before = {
        "sha256": "x",
        "strengthMin": 0.2,
        "trainedWords": [{"word": "ink style", "civitai": True}, {"word": "b"}],
    }
    place = put(lora.with_name("ink.v1.safetensors.rgthree-info.json"), before)
    assert write_notes(lora, read_fields(ALL)) == [place.name, "ink.v1.json"]
    assert read(place) == {
        "sha256": "x", "strengthMin": 0.2, "userNote": "mine",
        "trainedWords": [{"word": "ink style", "civitai": True}, {"word": "(bold, black:1.2)"}],
    }  # fmt: skip
    assert read(lora.with_name("ink.v1.json"))["preferred weight"] == 0.8
    found = read_sidecars(lora)
    assert (found.user_notes, found.strength) == ("mine", 0.8)


def test_each_field_goes_where_it_is_read_from(lora: Path) -> None:
    """A strength elsewhere is changed where it stands, or the old one would be shown on."""
    first = put(lora.with_name("ink.v1.json"), {"preferred weight": 0.5, "sd version": "SDXL"})
    second = put(lora.with_name("ink.v1.metadata.json"), {"notes": "old"})
    assert sorted(write_notes(lora, read_fields(ALL))) == [first.name, second.name]
    assert read(first) == {"preferred weight": 0.8, "sd version": "SDXL"}
    assert read(second)["notes"] == "mine"
    found = read_sidecars(lora)
    assert (found.user_notes, found.strength, found.base) == ("mine", 0.8, "SDXL")


def test_clearing(lora: Path) -> None:
    place = put(lora.with_name("ink.v1.json"), {"preferred weight": 0.5, "notes": "a", "activation text": "b", "z": 1})
    write_notes(lora, read_fields({"notes": "", "strength": None, "trigger_words": []}))
    assert read(place) == {"preferred weight": 0, "notes": "", "activation text": "", "z": 1}


@pytest.mark.parametrize("broken", [b"{", b"[1]", b"\xff\xff", b"null", b'{"a":' + b"[" * 100_000])
@pytest.mark.parametrize("name", ["ink.v1.json", "ink.v1.metadata.json", "ink.v1.safetensors.rgthree-info.json"])
def test_a_broken_sidecar_is_not_written_over(lora: Path, broken: bytes, name: str) -> None:
    place = lora.with_name(name)
    place.write_bytes(broken)
    with pytest.raises(CorruptFileError, match=name):
        write_notes(lora, read_fields(ALL))
    assert place.read_bytes() == broken
    assert sorted(os.listdir(lora.parent)) == sorted([lora.name, name])


def test_broken_tips_are_not_written_over(lora: Path) -> None:
    place = put(lora.with_name("ink.v1.metadata.json"), {"usage_tips": "{strength"})
    with pytest.raises(CorruptFileError, match="usage_tips"):
        write_notes(lora, read_fields(ALL))
    assert read(place) == {"usage_tips": "{strength"}


def test_a_link_that_leads_nowhere_makes_no_file_elsewhere(lora: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    lora.with_name("ink.v1.json").symlink_to(outside)
    with pytest.raises(CorruptFileError, match="a link that leads nowhere"):
        write_notes(lora, read_fields(ALL))
    assert not outside.exists()


def test_a_disk_that_refuses_is_one_line_and_leaves_the_old_file(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = put(lora.with_name("ink.v1.json"), {"notes": "old"})

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(lora))

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(CorruptFileError) as caught:
        write_notes(lora, read_fields(ALL))
    assert caught.value.message.startswith("ink.v1.json: cannot be written (Permission denied).")
    assert str(lora.parent) not in caught.value.message
    assert read(place) == {"notes": "old"}
    assert sorted(os.listdir(lora.parent)) == sorted([lora.name, place.name])


@pytest.mark.parametrize(
    "given",
    [
        {}, {"name": "x"}, {"notes": 3}, {"notes": "x" * 20_001}, {"strength": "much"}, {"strength": "0.8"},
        {"strength": True}, {"strength": float("nan")}, {"strength": 1e9}, {"trigger_words": 3},
        {"trigger_words": [1]}, {"trigger_words": ["w"] * 65}, {"notes": None},
    ],
)  # fmt: skip
def test_what_may_not_be_written(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        read_fields(given)


def test_all_faults_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_fields({"notes": 1, "strength": "x", "trigger_words": 2})
    assert len(caught.value.faults) == 3


@given(
    st.dictionaries(
        st.text(), st.recursive(st.none() | st.floats() | st.text() | st.integers(), st.lists, max_leaves=4)
    ),
    st.text(max_size=50),
)
def test_other_fields_stay_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any], text: str
) -> None:
    lora = tmp_path_factory.mktemp("notes") / "ink.safetensors"
    place = put(lora.with_name("ink.json"), table)
    before = read(place)
    fields = read_fields({"notes": text})
    write_notes(lora, fields)
    after = read(place)
    assert after.pop("notes") == fields["notes"]
    before.pop("notes", None)
    assert repr(after) == repr(before)
