"""Hashes against hashlib over the same bytes, cut by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora_core.io import TensorFile, file_hashes
from lora_core.io.hashes import sha256_of


def test_autov3_is_of_the_tensors_alone(tmp_path: Path) -> None:
    """It survives another title in the header; AutoV2 does not."""
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"w": torch.arange(10.0)}, first, {"title": "one"})
    save_file({"w": torch.arange(10.0)}, second, {"title": "another"})
    a, b = file_hashes(first), file_hashes(second)

    assert a.sha256 == hashlib.sha256(first.read_bytes()).hexdigest()
    assert a.autov2 == a.sha256[:10]
    body = first.read_bytes()[TensorFile(first).data_start :]
    assert a.autov3 == b.autov3 == hashlib.sha256(body).hexdigest()[:12]
    assert a.autov2 != b.autov2


def test_a_file_without_tensors_has_no_autov3(tmp_path: Path) -> None:
    """All such files would share e3b0c44298fc."""
    save_file({}, tmp_path / "empty.safetensors")
    assert file_hashes(tmp_path / "empty.safetensors").autov3 is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 100], ids=len)
def test_any_file_has_a_sha256(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.ckpt"
    path.write_bytes(content)
    assert file_hashes(path).sha256 == hashlib.sha256(content).hexdigest()


def test_a_changed_file_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.ones(2)}, path)
    before = file_hashes(path)
    save_file({"w": torch.zeros(3)}, path)
    assert file_hashes(path) != before


def test_a_hash_can_be_stopped(tmp_path: Path) -> None:
    path = tmp_path / "any"
    path.write_bytes(b"abc")
    assert sha256_of(path, start=1) == hashlib.sha256(b"bc").hexdigest()

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sha256_of(path, check=stop)
