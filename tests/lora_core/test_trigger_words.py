"""Where trigger words come from."""

from __future__ import annotations

import json
from pathlib import Path

from lora_core.trigger_words import find_words, trigger_words

GUESS = {"ss_tag_frequency": json.dumps({"10_ink": {"guess": 12, "tree": 3}})}


def test_the_header_comes_before_what_stands_beside(tmp_path: Path):
    (tmp_path / "ink.json").write_text(json.dumps({"activation text": "bold, Ink Style"}), "utf-8")
    (tmp_path / "ink.txt").write_text("rain", "utf-8")

    found = trigger_words(tmp_path / "ink.safetensors", {"modelspec.trigger_phrase": "ink style"} | GUESS)

    assert found == ["ink style", "bold", "rain"]


def test_the_guess_is_only_for_files_of_which_nothing_else_is_known(tmp_path: Path):
    assert trigger_words(tmp_path / "ink.safetensors", GUESS) == ["guess"]
    assert trigger_words(None, GUESS | {"modelspec.trigger_phrase": "ink style"}) == ["ink style"]


def test_no_source_no_words():
    assert trigger_words(None, {}) == []


def test_what_could_not_be_read_is_said(tmp_path: Path):
    (tmp_path / "ink.json").write_text("{", "utf-8")

    found = find_words(tmp_path / "ink.safetensors", {"ss_tag_frequency": "{", "modelspec.trigger_phrase": "ink"})

    assert found.words == ["ink"]
    assert [note.split(":")[0] for note in found.notes] == [
        "ss_tag_frequency in the header",
        "ink.json beside the LoRA is left out",
    ]
