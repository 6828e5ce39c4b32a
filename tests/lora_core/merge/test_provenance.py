"""What a merged file says of itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import small_models
from lora_core import Stack, StackEntry, Strengths, load_adapter
from lora_core.io import TensorFile, file_hashes
from lora_core.merge import merge_to_checkpoint
from lora_core.version import VERSION


def merged(tmp_path: Path, **metadata: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Metadata and recipe of a merge of two files."""
    small_models.write_checkpoint(tmp_path / "base.safetensors", **metadata)
    save_file(small_models.lora_tensors(1), tmp_path / "ink.safetensors")
    entries = (
        StackEntry(load_adapter(tmp_path / "ink.safetensors"), Strengths(0.8, 0.5, blocks={"mid": 0.5})),
        StackEntry(small_models.adapter(small_models.lora_tensors(2), "in memory")),
    )
    merge_to_checkpoint(tmp_path / "base.safetensors", Stack(entries), tmp_path / "new.safetensors", dtype="bf16")
    found = TensorFile(tmp_path / "new.safetensors").metadata
    return dict(found), json.loads(found["loom.recipe"])


def test_the_recipe_names_files_strengths_hashes_and_versions(tmp_path: Path) -> None:
    metadata, recipe = merged(tmp_path, author="somebody")
    assert metadata["author"] == "somebody"
    base = hashlib.sha256((tmp_path / "base.safetensors").read_bytes()).hexdigest()
    assert recipe["checkpoint"] == {
        "name": "base.safetensors",
        "architecture": "loom_demo",
        "sha256": {"base.safetensors": base},
    }
    hashes = file_hashes(tmp_path / "ink.safetensors")
    assert recipe["loras"][0] == {
        "name": "ink.safetensors",
        "sha256": hashes.sha256,
        "autov3": hashes.autov3,
        "model": 0.8,
        "clip": 0.5,
        "components": {},
        "blocks": {"mid": 0.5},
    }
    assert recipe["loras"][1] == {"name": "in memory", "model": 1.0, "clip": 1.0, "components": {}, "blocks": {}}
    assert recipe["dtype"] == "bf16"
    assert recipe["versions"]["lora-loom"] == VERSION
    assert str(tmp_path) not in json.dumps(metadata)


def test_a_source_without_modelspec_gets_none(tmp_path: Path) -> None:
    metadata, _ = merged(tmp_path)
    assert set(metadata) == {"loom.recipe"}


def test_modelspec_is_brought_up_to_date(tmp_path: Path) -> None:
    """The hash is of the new tensors; a stale one would be a lie."""
    metadata, _ = merged(
        tmp_path,
        **{
            "modelspec.sai_model_spec": "1.0.1",
            "modelspec.architecture": "stable-diffusion-v1",
            "modelspec.title": "Base",
            "modelspec.date": "2022-10-01",
            "modelspec.hash_sha256": "0x" + "1" * 64,
            "sshs_model_hash": "2" * 64,
        },
    )
    path = tmp_path / "new.safetensors"
    body = path.read_bytes()[TensorFile(path).data_start :]
    assert metadata["modelspec.hash_sha256"] == "0x" + hashlib.sha256(body).hexdigest()
    assert metadata["modelspec.title"] == "new"
    assert metadata["modelspec.merged_from"] == "base, ink, in memory"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1"
    assert metadata["modelspec.date"] > "2026"
    assert "sshs_model_hash" not in metadata


def test_the_version_is_the_packages(repository: Path) -> None:
    project = (repository / "pyproject.toml").read_text()
    assert f'\nversion = "{VERSION}"\n' in project


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"]
)
def test_a_folder_records_each_of_its_files(tmp_path: Path, repository: Path, name: str) -> None:
    folder = repository / "demo" / "model"
    stack = small_models.stack_of(small_models.adapter(small_models.lora_tensors()))
    merge_to_checkpoint(folder, stack, tmp_path / "new.safetensors")
    recipe = json.loads(TensorFile(tmp_path / "new.safetensors").metadata["loom.recipe"])
    assert recipe["checkpoint"]["sha256"][name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
