"""The copy of the pack that the host gets: what git would know, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from host_harness.pack import copy_pack

FILES = ("__init__.py", "nodes/__init__.py", "demo/run.py", "demo/out/sheet.png", "notes.log", ".gitignore")


def make_pack(folder: Path) -> Path:
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / ".gitignore").write_text("*.log\n")
    return folder


def copied(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_ignored_files_and_results_stay_behind(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "pack")
    subprocess.run(["git", "init", "-q", str(pack)], check=True)
    copy_pack(pack, tmp_path / "copy")
    assert copied(tmp_path / "copy") == {"__init__.py", "nodes/__init__.py", "demo/run.py", ".gitignore"}


def test_an_unpacked_archive_is_copied_too(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "pack")
    copy_pack(pack, tmp_path / "copy")
    assert "nodes/__init__.py" in copied(tmp_path / "copy")
    assert "demo/out/sheet.png" not in copied(tmp_path / "copy")


def test_a_folder_that_is_no_pack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not the pack"):
        copy_pack(tmp_path, tmp_path / "copy")
