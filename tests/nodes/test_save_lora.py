"""A LORA_MODEL as a file: as it is, in another format, with metadata."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import lora_files
from lora_core import load_adapter
from lora_core.io import TensorFile


@pytest.fixture
def saving(files: ModuleType) -> Any:
    return importlib.import_module(f"{files.__name__.rpartition('.')[0]}._save_lora")


def nothing(part: int, whole: int) -> None:
    pass


def tensors() -> dict[str, torch.Tensor]:
    parts = lora_files.factors("loom_demo", seed=3, components=("denoiser",), modules=lora_files.ATTENTION)
    return {key: tensor.contiguous() for key, tensor in lora_files.peft(parts).items()}


def test_as_it_is_keeps_names_and_numbers(saving: Any, tmp_path: Path) -> None:
    given = {"diffusion_model.any.diff_b": torch.rand(3), "other.thing": torch.arange(4)}
    given["parameter"] = torch.nn.Parameter(torch.rand(4, 2).T.half())
    done = saving.save(given, tmp_path / "a.safetensors", saving.AS_IS, "fp32", {"a": "b"}, nothing)
    file = TensorFile(done.file)

    assert file.metadata == {"format": "pt", "a": "b"}
    assert done.left_out == {}
    assert {key: ref.dtype for key, ref in file.items()} == {
        "diffusion_model.any.diff_b": "F32", "other.thing": "I64", "parameter": "F32",
    }  # fmt: skip
    for key, tensor in given.items():
        assert torch.equal(file[key].load(), tensor.detach().to(file[key].load().dtype))


@pytest.mark.parametrize("format", ["kohya", "diffusers", "comfy"])
def test_a_format_is_a_conversion_with_the_users_metadata(saving: Any, tmp_path: Path, format: str) -> None:
    out = tmp_path / "a.safetensors"
    done = saving.save(tensors(), out, format, "fp32", saving.parse_metadata("title = Ink"), nothing)
    adapter = load_adapter(done.file)

    assert done.file == out
    assert adapter.report.format == format
    assert adapter.report.complete
    assert len(adapter.deltas) == len(tensors()) // 2
    metadata = TensorFile(out).metadata
    assert metadata["modelspec.title"] == "Ink"
    assert json.loads(metadata["loom.recipe"])["format"] == format


def test_a_folder(saving: Any, tmp_path: Path) -> None:
    out = tmp_path / "lora_00001_"
    done = saving.save(tensors(), out, "peft", "same", {}, nothing)

    assert done.file == out / "adapter_model.safetensors"
    assert done.file.is_file()
    assert saving.name_in("loom/lora_00001_", out, done.file) == "loom/lora_00001_/adapter_model.safetensors"
    assert saving.name_in("loom/a.safetensors", tmp_path / "a", tmp_path / "a") == "loom/a.safetensors"


@pytest.mark.parametrize(
    ("given", "format", "said"),
    [
        ({}, "kohya", "^lora_model: expected a LORA_MODEL, got an empty one; connect a node that makes one"),
        ("text", "kohya", "^lora_model: expected a LORA_MODEL, got a str"),
        ({"a": 3}, "kohya", "^lora_model: a is no tensor that a file can hold"),
        ({"a": torch.zeros(2, dtype=torch.complex128)}, "kohya", "^lora_model: a is no tensor that a file can hold"),
        ({"a": torch.zeros(2)}, "kohya", "^LORA_MODEL: not a LoRA file in a known format"),
        ({"a": torch.tensor([1.0, float("inf")])}, "as it is", "^LORA_MODEL: a: 1 of 2 values are NaN or infinite"),
        ({"a": torch.tensor([1e6])}, "as it is", "^LORA_MODEL: a has numbers beyond 65504"),
    ],
)
def test_what_cannot_be_written(saving: Any, tmp_path: Path, given: Any, format: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        saving.save(given, tmp_path / "a.safetensors", format, "fp16", {}, nothing)
    assert not list(tmp_path.glob("*.safetensors"))


def test_metadata_is_lines_or_json(saving: Any) -> None:
    assert saving.parse_metadata(" \n# nothing\n") == {}
    assert saving.parse_metadata("ss_tag = a = b\n tags= ink, dry \ntrigger_words=ink style\ncomment=x") == {
        "modelspec.sai_model_spec": "1.0.1",
        "ss_tag": "a = b",
        "modelspec.tags": "ink, dry",
        "modelspec.trigger_phrase": "ink style",
        "ss_training_comment": "x",
    }
    assert saving.parse_metadata('{"own": "1", "ss_x": "{}"}') == {"own": "1", "ss_x": "{}"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title\n= Ink", "^metadata: 'title': expected key = value; '= Ink': expected key = value$"),
        ('{"a": 1, "b": []}', "^metadata: a: expected a text in quotes; b: expected a text in quotes$"),
        ("{a}", "^metadata: begins with a brace and is not JSON"),
    ],
)
def test_metadata_that_is_neither(saving: Any, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        saving.parse_metadata(text)
