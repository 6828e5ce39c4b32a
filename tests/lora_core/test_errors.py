"""The text of errors, whatever a stranger's file holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from lora_core import load_adapter
from lora_core.errors import (
    MAX_MESSAGE,
    CorruptFileError,
    LoomError,
    MissingExtraError,
    ShapeMismatchError,
    UnknownArchitectureError,
    UnknownCheckpointError,
    UnknownFormatError,
)
from lora_core.text import visible


def test_a_key_neither_steers_the_terminal_nor_adds_a_line(tmp_path: Path) -> None:
    key = "a\x1b[2J\x1b[31mPWNED\nsecond line"
    save_file({key: torch.ones(2)}, tmp_path / "evil.safetensors")

    with pytest.raises(UnknownFormatError) as caught:
        load_adapter(tmp_path / "evil.safetensors")

    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.example == key


def test_control_characters_go_and_line_ends_become_spaces() -> None:
    error = CorruptFileError("ink.safetensors", "a\x1b[31m\x07 \u202eb\r\n\tc\x85d\ud800")

    assert error.message == str(error) == error.args[0]
    assert error.message == "ink.safetensors: a[31m b c d. Download or copy the file again."


def test_a_long_message_keeps_what_is_wrong_and_what_to_do() -> None:
    error = ShapeMismatchError("ink.safetensors", "mid.diff", (2, 2), (1,) * 300_000, "The file is damaged.")

    assert len(str(error)) <= MAX_MESSAGE
    assert str(error).startswith("ink.safetensors: mid.diff: expected (2, 2), got (1, 1,")
    assert str(error).endswith("1, 1). The file is damaged.")
    assert " [...] " in str(error)
    assert len(error.got) == 300_000


@given(st.text() | st.text(min_size=MAX_MESSAGE))
def test_any_text_is_one_short_line(text: str) -> None:
    message = str(LoomError(text))

    assert len(message) <= MAX_MESSAGE
    assert len(message.splitlines()) <= 1
    assert all(visible(char) for char in message)


def test_a_missing_package_is_installed_from_the_clone() -> None:
    """The package is not on PyPI."""
    error = MissingExtraError("typer", "cli", "the command line")

    assert isinstance(error, ImportError)
    assert (error.package, error.extra) == ("typer", "cli")
    assert str(error) == (
        "the command line needs the package 'typer'. "
        'Run `pip install ".[cli]"` in the folder of your clone of LoRA Loom.'
    )


def test_an_unknown_model_is_told_in_few_words_however_many_are_known() -> None:
    known = [f"Model {number}" for number in range(100)]
    lora = UnknownArchitectureError("ink.safetensors", "SDXL", 3, 10, "it has x", known)
    checkpoint = UnknownCheckpointError("base.safetensors", "a.weight", known)
    for error in (lora, checkpoint):
        assert "100 models are known" in error.message
        assert len(error.message) < 300
        assert error.known == tuple(known)
