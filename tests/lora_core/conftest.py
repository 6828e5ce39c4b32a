"""Fixtures of the command line: `loom` runs it, `base` and `lora` are small files for it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import small_models
from command_line import Loom, Result
from lora_core.cli import main


@pytest.fixture
def loom(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Loom:
    monkeypatch.setenv("COLUMNS", "200")  # so that tables do not wrap
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Result:
        try:
            status = main([str(argument) for argument in arguments])
        finally:
            signal.signal(signal.SIGTERM, before)
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture
def base(tmp_path: Path) -> Path:
    small_models.write_checkpoint(tmp_path / "base.safetensors")
    return tmp_path / "base.safetensors"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    tensors = small_models.lora_tensors() | {"bundle_emb.ink.clip_l": torch.zeros(1, 128)}
    save_file(tensors, tmp_path / "ink.safetensors", {"modelspec.trigger_phrase": "[bold]ink[/bold]"})
    return tmp_path / "ink.safetensors"
