"""Describing in a process of its own: the same words, and what becomes of a helper that dies."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_core.library import apart as module
from lora_core.library.apart import Apart
from lora_core.library.entry import describe_file

from .conftest import Shelf, settle, wait_for


@pytest.fixture
def apart() -> Iterator[Apart]:
    made = Apart()
    yield made
    made.close()
    made.rest()


def test_it_says_what_is_said_here(apart: Apart, shelf: Shelf) -> None:
    paths = [shelf.put("墨 <img>.safetensors", "Ink"), shelf.folders[0] / "none.safetensors"]
    (shelf.folders[0] / "bad.safetensors").write_bytes(b"bad")
    paths.append(shelf.folders[0] / "bad.safetensors")
    assert not apart.running
    for path in paths:
        here = describe_file(str(path))
        assert apart.describe(str(path)) == here._replace(metadata={})
    assert apart.running
    apart.rest()
    assert not apart.running


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_file_that_ends_the_helper_is_the_only_one_that_fails(apart: Apart, shelf: Shelf) -> None:
    good, deadly = str(shelf.put("good.safetensors")), shelf.folders[0] / "deadly.safetensors"
    assert apart.describe(good).error is None
    assert apart._process is not None
    os.mkfifo(deadly)  # opening it waits for a writer that never comes
    os.kill(apart._process.pid, signal.SIGKILL)
    found = apart.describe(str(deadly))
    assert found.error is not None
    assert found.error.startswith("deadly.safetensors: the process that read it ended.")
    assert not found.lasting
    assert apart.describe(good).error is None


def test_where_it_cannot_run_it_is_done_here(apart: Apart, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(shelf.put("a.safetensors"))
    monkeypatch.setattr(module, "_CODE", "raise SystemExit(1)")
    for _ in range(module._PATIENCE):
        assert apart.usable
        assert apart.describe(path) == describe_file(path)
    assert not apart.usable


def test_a_program_that_is_no_python_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for executable in ("", "/opt/Comfy/ComfyUI.exe", None):
        monkeypatch.setattr(sys, "executable", executable)
        assert not Apart().usable


def test_many_files_go_to_the_helper_which_then_ends(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_core.library.library._MANY", 5)
    here: list[str] = []
    monkeypatch.setattr(
        "lora_core.library.library.describe_file", lambda path: here.append(path) or describe_file(path)
    )
    for number in range(8):
        shelf.put(f"{number}.safetensors")
    library = shelf.library()
    found = settle(library)
    assert {entry["state"] for entry in found.values()} == {"described"}
    assert here == []
    wait_for(lambda: not library._apart.running)
    shelf.put("one_more.safetensors")
    settle(library)
    assert [Path(path).name for path in here] == ["one_more.safetensors"]


def test_it_ends_with_the_library(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_core.library.library._MANY", 1)
    for number in range(50):
        shelf.put(f"{number}.safetensors")
    library = shelf.library()
    library.refresh()
    wait_for(lambda: library._apart.running)
    process = library._apart._process
    assert process is not None
    library.close()
    assert process.wait(30) is not None
