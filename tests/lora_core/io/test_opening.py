"""One way to open files and folders, by what is in them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora_core.errors import CorruptFileError
from lora_core.io import TensorFile, open_tensors, state_of, tensors_path
from lora_core.io.pickled import TensorPickle

TENSORS = {"base_model.model.x.lora_A.weight": torch.ones(2, 3)}


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "a.safetensors")
    save_file(TENSORS, tmp_path / "b.pt")
    pickle = open_tensors(tmp_path / "a.safetensors")
    assert isinstance(pickle, TensorPickle)
    assert all(torch.equal(pickle[key].load(), tensor) for key, tensor in TENSORS.items())
    assert isinstance(open_tensors(tmp_path / "b.pt"), TensorFile)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_a_peft_folder_brings_its_settings(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "ink"
    folder.mkdir()
    (torch.save if name.endswith(".bin") else save_file)(TENSORS, folder / name)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4}))
    for path in (folder, folder / name):
        source = open_tensors(path)
        assert source.label == f"ink/{name}"
        assert json.loads(source.metadata["adapter_config"]) == {"r": 2, "lora_alpha": 4}
        assert list(source) == list(TENSORS)
    assert tensors_path(folder) == folder / name


def test_settings_beside_another_file_are_not_its_own(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "ink.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert open_tensors(tmp_path / "ink.safetensors").metadata == {}


def test_huge_settings_are_refused(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes(b" " * 1_000_001)
    with pytest.raises(CorruptFileError, match=r"adapter_config.json: larger than 1000000 bytes"):
        open_tensors(tmp_path)


def test_a_folder_without_tensors(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match=r"a folder without adapter_model.safetensors. Give the file itself"):
        open_tensors(tmp_path)


def test_the_state_changes_with_the_settings(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "adapter_model.safetensors")
    config = tmp_path / "adapter_config.json"
    before = state_of(tmp_path)
    config.write_text("{}")
    with_settings = state_of(tmp_path)
    os.utime(config, ns=(1, 1))
    assert len({before, with_settings, state_of(tmp_path)}) == 3


def test_what_is_neither(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(CorruptFileError, match=r"a pickle, but not one of torch.save"):
        open_tensors(tmp_path / "a.pt")
    with pytest.raises(FileNotFoundError):
        open_tensors(tmp_path / "none.pt")


@pytest.mark.parametrize("first", [0x80, 0x50, 0x3C, 0x7B])
def test_a_header_whose_length_begins_as_another_kind_of_file(tmp_path: Path, first: int) -> None:
    """0x80 begins a pickle, and the length of every 256th header. Found by the benchmark of loading."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}).ljust(first + 512).encode()
    path = tmp_path / "ink.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert path.read_bytes()[0] == first
    assert list(open_tensors(path)) == ["a"]
