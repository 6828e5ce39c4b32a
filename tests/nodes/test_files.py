"""Names of a graph and the files that they mean, on folders that hold what the tests put there."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import lora_files
from lora_core.errors import LoomError
from lora_core.io import file_hashes


@pytest.fixture
def ink(folders: Any) -> Path:
    return lora_files.save(folders.base / "loras" / "styles" / "ink.safetensors", {"a": torch.ones(2)}, x="y")


def item(files: ModuleType, *values: Any, **extras: Any) -> Any:
    return importlib.import_module(f"{files.StackItem.__module__}").StackItem(*values, **extras)


def test_an_entry_that_is_handed_on_has_the_name_of_its_file(files: ModuleType, ink: Path) -> None:
    """Other packs look the name up as it is: they know neither short names nor hashes."""
    short = files.resolved(item(files, "ink", 0.8, 0.5, blocks="mid=0", schedule="0.2@0.5"))
    autov3 = file_hashes(ink).autov3
    renamed = files.resolved(item(files, "its old name", 0.8, 0.5, hash=autov3))

    assert tuple(short) == tuple(renamed) == ("styles/ink.safetensors", 0.8, 0.5)
    assert (short.blocks, short.schedule) == ("mid=0", "0.2@0.5")
    assert renamed.hash == autov3


def test_a_hash_that_is_known_costs_no_reading(files: ModuleType, ink: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing LoRA with a hash would else open, and mostly read, every file there is, while a prompt is checked."""
    autov3 = file_hashes(ink).autov3
    lora_files.save(ink.with_name("new.safetensors"), {"a": torch.ones(3)})
    (ink.with_name("old.pt")).write_bytes(b"a pickle has none")
    known = {"styles/ink.safetensors": autov3, "styles/old.pt": ""}
    read: list[str] = []
    monkeypatch.setattr(files, "file_hashes", lambda path: read.append(os.path.basename(path)) or file_hashes(path))
    files.ask_first(known.get)

    assert files.lora_name("renamed since", autov3) == "styles/ink.safetensors"
    assert "no LoRA named" in files.check_loras([("gone", "0123456789ab")])
    assert read == ["new.safetensors", "new.safetensors"]


def test_a_link_that_leads_nowhere_is_said_to_be_gone(files: ModuleType, ink: Path) -> None:
    ink.with_name("gone.safetensors").symlink_to(ink.with_name("nothing.safetensors"))

    said = files.check_loras([("gone", "")])

    assert said.startswith("styles/gone.safetensors: this LoRA is in the list, but cannot be read: it was deleted")
    assert "did you mean" not in said
    assert files.check_loras([("ink", "")]) is True


def test_the_fingerprint_changes_with_the_file_and_with_what_stands_beside_it(files: ModuleType, ink: Path) -> None:
    states = [files.fingerprint([("ink", "")])]
    sidecar = ink.with_suffix(".txt")
    sidecar.write_text("ink style")
    states.append(files.fingerprint([("ink", "")]))
    sidecar.write_text("inky")
    states.append(files.fingerprint([("ink", "")]))
    os.utime(ink, (1, 1))
    states.append(files.fingerprint([("ink", "")]))

    assert len(set(states)) == 4
    assert files.fingerprint([("styles/ink.safetensors", "")]) == states[-1]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "it is empty"),
        ("mine/", "it is empty"),
        (".safetensors", "it is empty"),
        ("../mine", "leaves the loras folder"),
        ("/mine", "leaves the loras folder"),
        ("mine/con:*?", r"it holds \* : \?, which names of files have not everywhere"),
        ("mi\nne", "control character"),
    ],
)
def test_a_name_that_is_no_file_of_the_folder_is_refused(files: ModuleType, name: str, fault: str) -> None:
    with pytest.raises(files.ConfigError, match=fault) as caught:
        files.check_filename(name, "loras", "name")
    assert str(caught.value).startswith("name: ")
    files.check_filename("mine/Ink & wash (2), v1.5.safetensors", "loras")


def stopped(files: ModuleType, filename: str, error: type[BaseException], beside: str = "") -> None:
    """A merge that fails, while another program writes a file beside it."""
    with files.new_file("checkpoints", filename) as new:
        assert new.path.parent.is_dir()
        if beside:
            new.path.with_name(beside).touch()
        raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_no_folder_is_left_when_nothing_is_written(files: ModuleType, folders: Any, error: type[BaseException]) -> None:
    checkpoints = folders.base / "checkpoints"
    (checkpoints / "mine").mkdir()
    for filename in ("mine/loom/deep/merged", "merged"):
        with pytest.raises(error):
            stopped(files, filename, error)

    # What was there before stays, though it is empty.
    assert list(checkpoints.rglob("*")) == [checkpoints / "mine"]


def test_what_else_came_into_the_folder_stays(files: ModuleType, folders: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        stopped(files, "loom/merged", KeyboardInterrupt, beside="another.safetensors")

    assert folders.get_filename_list("checkpoints") == ["loom/another.safetensors"]


def test_a_new_checkpoint_has_the_name_that_loaders_know(files: ModuleType, folders: Any) -> None:
    with files.new_file("checkpoints", "loom\\merged.safetensors") as new:
        new.path.touch()

    assert folders.get_filename_list("checkpoints") == [new.name] == ["loom/merged_00001_.safetensors"]


def test_models_of_their_own_folder_can_be_merged_into(files: ModuleType, folders: Any) -> None:
    (folders.base / "checkpoints" / "whole.safetensors").touch()
    (folders.base / "diffusion_models" / "flux.safetensors").touch()

    assert files.merge_sources() == [files.BUILT_IN, "whole.safetensors", "[diffusion_models] flux.safetensors"]
    assert files.merge_source("[diffusion_models] flux.safetensors") == (
        folders.base / "diffusion_models" / "flux.safetensors",
        "diffusion_models",
    )
    assert files.merge_source("whole.safetensors") == (
        folders.base / "checkpoints" / "whole.safetensors",
        "checkpoints",
    )
    with pytest.raises(KeyError, match=r"did you mean 'flux\.safetensors'"):
        files.merge_source("[diffusion_models] flx.safetensors")


def test_names_out_of_the_folder(files: ModuleType, ink: Path) -> None:
    # The pack is a second copy of the library here, so its errors are not those of `lora_core`.
    error = importlib.import_module(f"{files.__name__.partition('.')[0]}.lora_core.errors").LoomError
    assert error is not LoomError
    for name in ("../ink.safetensors", "/ink.safetensors"):
        with pytest.raises(error, match="expected a name inside the loras folder"):
            files.lora_path(name)
