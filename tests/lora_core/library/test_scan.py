"""What is on disk: files of names, and what lies beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lora_core.library.scan import FileState, besides, find_files


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_name_is_the_file_of_the_first_folder_that_has_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    put(one / "a.pt", "1")
    put(two / "a.pt", "22")
    put(two / "sub" / "b.pt", "333")
    (one / "c.pt").mkdir()  # a folder is none
    put(two / "c.pt", "4444")
    name = os.path.join("sub", "b.pt")
    found = find_files(["a.pt", name, "c.pt", "gone.pt", "nul\0l.pt"], [str(one), str(two) + os.sep])
    assert [file.size for file in found.values()] == [1, 3, 4, 0, 0]
    assert found[name].path == str(two / "sub" / "b.pt")
    assert found["gone.pt"] == FileState(str(one / "gone.pt"), 0, 0)
    assert found["a.pt"].modified == (one / "a.pt").stat().st_mtime_ns
    assert find_files(["a.pt"], []) == {}


def beside(path: Path) -> str:
    (found,) = besides([str(path)])
    return found[str(path)]


@pytest.mark.parametrize(
    "name",
    [
        "ink.v1.json", "ink.v1.metadata.json", "ink.v1.safetensors.rgthree-info.json", "ink.v1.civitai.info",
        "ink.v1.txt", "ink.v1.png", "ink.v1.preview.mp4",
    ],
)  # fmt: skip
def test_each_kind_of_sidecar_counts_when_it_comes_changes_and_goes(tmp_path: Path, name: str) -> None:
    lora = put(tmp_path / "ink.v1.safetensors")
    assert beside(lora) == ""
    place = put(tmp_path / name, "1")
    first = beside(lora)
    os.utime(place, ns=(1, 1))
    assert "" != first != beside(lora) != ""
    place.unlink()
    assert beside(lora) == ""


def test_what_is_not_beside_this_file_does_not_count(tmp_path: Path) -> None:
    lora = put(tmp_path / "ink.safetensors")
    for name in ("ink2.json", "other.png", "ink.yaml", "ink", "adapter_config.json"):
        put(tmp_path / name)
    assert beside(lora) == ""
    trained = put(tmp_path / "adapter_model.safetensors")
    assert beside(trained) != ""


def test_folders_one_by_one_and_one_that_is_gone(tmp_path: Path) -> None:
    paths = [str(put(tmp_path / folder / f"{n}.pt")) for folder in ("a", "b") for n in range(3)]
    put(tmp_path / "b" / "1.txt")
    gone = str(tmp_path / "gone" / "x.pt")
    found = list(besides([*paths, gone]))
    assert [len(folder) for folder in found] == [3, 3, 1]
    assert [path for folder in found for path, said in folder.items() if said] == [paths[4]]
