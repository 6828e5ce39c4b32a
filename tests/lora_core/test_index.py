"""The index of a folder: what each file is, from headers alone."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import small_models
from lora_core.index import index_folder, lora_files
from lora_core.io import TensorFile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tensors = small_models.lora_tensors(only="attn1", alpha=8)
    metadata = {"modelspec.title": "Ink", "modelspec.trigger_phrase": "ink style"}
    (tmp_path / "styles" / "trained").mkdir(parents=True)
    save_file(tensors, tmp_path / "styles" / "ink.safetensors", metadata)
    save_file(tensors, tmp_path / "styles" / "trained" / "adapter_model.safetensors")
    torch.save(tensors, tmp_path / "old.PT")
    (tmp_path / "broken.safetensors").write_bytes(b"<html>")
    (tmp_path / "readme.txt").write_text("nothing")
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "styles" / "again").symlink_to(tmp_path)  # a folder in itself
    return tmp_path


def test_each_file_has_its_line(folder: Path) -> None:
    entries: dict[Any, Any] = {entry["path"]: entry for entry in index_folder(folder)}
    paths = ["broken.safetensors", "gone.safetensors", "old.PT"]
    paths += ["styles/ink.safetensors", "styles/trained/adapter_model.safetensors"]
    assert list(entries) == paths
    ink = entries["styles/ink.safetensors"]
    assert (ink["format"], ink["architecture"], ink["title"]) == ("kohya", "loom_demo", "Ink")
    assert (ink["trigger_words"], ink["ranks"]) == (["ink style"], {"4": 28})
    assert ink["adapter_types"] == entries["old.PT"]["adapter_types"] == {"lora": 28}
    assert entries["broken.safetensors"]["error"].startswith("broken.safetensors: only 6 bytes long")
    assert entries["gone.safetensors"]["error"] == "gone.safetensors: No such file or directory."
    assert json.loads(json.dumps(list(entries.values()))) == list(entries.values())


def test_no_tensor_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorFile, "view", None)
    monkeypatch.setattr(torch, "load", None)
    assert [entry["path"] for entry in index_folder(folder) if "error" not in entry] == [
        "old.PT", "styles/ink.safetensors", "styles/trained/adapter_model.safetensors",
    ]  # fmt: skip


def test_what_did_not_change_is_not_opened_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = index_folder(folder)
    opened: list[str] = []
    monkeypatch.setattr("lora_core.index._describe", lambda file: opened.append(file.name) or {})
    os.utime(folder / "old.PT", ns=(1, 1))
    second = index_folder(folder, known=first)
    assert opened == ["old.PT"]
    assert [entry for entry in second if entry["path"] != "old.PT"] == [
        entry for entry in first if entry["path"] != "old.PT"
    ]


def test_progress_and_an_empty_folder(folder: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    index_folder(folder, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 5) for done in range(6)]
    (tmp_path / "empty").mkdir()
    assert index_folder(tmp_path / "empty") == []
    assert gc.isenabled()
    assert list(lora_files(tmp_path / "none")) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no list of open files on this system")
def test_no_file_stays_open(folder: Path) -> None:
    """Without waiting for the collector of garbage: more files than a process may have open are indexed."""
    index_folder(folder)  # imports and tables of families
    before = len(os.listdir("/proc/self/fd"))
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            index_folder(folder)
        assert len(os.listdir("/proc/self/fd")) <= before
    finally:
        gc.enable()
