"""The report of a file: NODES.md's schema, JSON, and every tensor in exactly one place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import small_models
from lora_core.errors import CorruptFileError, UnknownNameError, WrongBaseError
from lora_core.inspect import describe, inspect_file

FIELDS = [
    "file",
    "format",
    "architecture",
    "adapter_types",
    "components",
    "ranks",
    "tensors",
    "trigger_words",
    "metadata",
    "hashes",
]


def mixed() -> dict[str, torch.Tensor]:
    """A LoRA with everything that a report can say of a tensor."""
    tensors = small_models.lora_tensors(only="attn2")
    tensors |= small_models.lora_tensors(5, rank=8, only="lora_te", alpha=8)
    tensors["lora_unet_conv_in.diff"] = torch.zeros(64, 16, 3, 3)
    tensors["lora_unet_conv_in.diff_b"] = torch.zeros(64)
    tensors["lora_unet_nowhere.alpha"] = torch.tensor(1.0)  # unmatched
    tensors["lora_unet_conv_out.lora_down.weight"] = torch.zeros(4, 65, 3, 3)  # misfit
    tensors["lora_unet_conv_out.lora_up.weight"] = torch.zeros(16, 4, 1, 1)  # ignored: belongs to it
    tensors["bundle_emb.ink.clip_l"] = torch.zeros(3, 128)
    return tensors


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    save_file(mixed(), tmp_path / "ink.safetensors", {"modelspec.trigger_phrase": "ink style"})
    return tmp_path / "ink.safetensors"


def test_the_schema(lora: Path) -> None:
    report = inspect_file(lora)
    assert [field for field in report if field in FIELDS] == FIELDS
    assert report["file"] == "ink.safetensors"
    assert (report["format"], report["architecture"]) == ("kohya", "loom_demo")
    assert report["adapter_types"] == {"lora": 28 + 12, "full": 1}
    assert report["components"] == {"denoiser": 28 + 1, "text_encoder": 12}
    assert report["ranks"] == {"4": 28, "8": 12}
    assert report["trigger_words"] == ["ink style"]
    assert report["metadata"] == {"modelspec.trigger_phrase": "ink style"}
    whole = hashlib.sha256(lora.read_bytes()).hexdigest()
    assert report["hashes"] == {"sha256": whole, "autov2": whole[:10], "autov3": report["hashes"]["autov3"]}  # type: ignore[index]
    assert json.loads(json.dumps(report)) == report


def test_every_tensor_is_in_one_place(lora: Path) -> None:
    tensors: Any = inspect_file(lora)["tensors"]
    assert tensors["total"] == len(mixed())
    assert tensors["unmatched"] == ["lora_unet_nowhere.alpha"]
    misfit = {"key": "lora_unet_conv_out.lora_down.weight", "expected": [4, 64, 3, 3], "got": [4, 65, 3, 3]}
    assert tensors["misfit"] == [misfit]
    assert set(tensors["ignored"]) == {"lora_unet_conv_out.lora_up.weight"}
    assert tensors["used"] + 1 + 1 + 1 == tensors["total"]


def test_embeddings_and_how_many_vectors_they_have(lora: Path) -> None:
    assert inspect_file(lora)["embeddings"] == {"ink": {"vectors": {"clip_l": 3}}}


def test_modules_when_asked(lora: Path) -> None:
    assert "modules" not in inspect_file(lora)
    modules: Any = inspect_file(lora, modules=True)["modules"]
    assert {
        "name": "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
        "component": "denoiser",
        "module": "middle_block.1.transformer_blocks.0.attn2.to_k",
        "slice": None,
        "type": "lora",
        "rank": 4,
        "alpha": 2.0,
    } in modules
    assert sum(module["module"] == "input_blocks.0.0" for module in modules) == 2  # weight and bias


def test_hashes_only_when_asked(lora: Path) -> None:
    assert "hashes" not in inspect_file(lora, hashes=False)


def test_tensors_in_memory_have_a_report_too() -> None:
    report = describe(small_models.adapter(small_models.lora_tensors(), "from the graph"))
    assert report["file"] == "from the graph"
    assert "hashes" not in report


def test_errors_pass_through(lora: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongBaseError):
        inspect_file(lora, architecture="sdxl")
    with pytest.raises(UnknownNameError, match="did you mean 'sdxl'"):
        inspect_file(lora, architecture="sdxxl")
    (tmp_path / "bad.safetensors").write_bytes(b"<html>")
    with pytest.raises(CorruptFileError):
        inspect_file(tmp_path / "bad.safetensors")
