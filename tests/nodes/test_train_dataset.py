"""Folders of pictures by name, pictures of the graph as a folder, and what is said of them."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def pack(files: ModuleType) -> Any:
    nodes = files.__name__.rpartition(".")[0]
    names = ("folders", "pictures", "plan", "sheet")
    modules = {name: importlib.import_module(f"{nodes}._dataset_{name}") for name in names}
    return SimpleNamespace(**modules, types=importlib.import_module(f"{nodes}._train_types"))


def picture(path: Path, caption: str | None = None, size: tuple[int, int] = (48, 48), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(levels).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)
    return path


def dataset(pack: Any, folder: Path, validation: dict[str, Any] | None = None, **data: Any) -> Any:
    return pack.types.Dataset({"folder": str(folder), **data}, validation or {})


def test_folders_with_pictures_are_listed(pack: Any, folders: Any) -> None:
    top = folders.base / "input"
    picture(top / "loose.png")
    picture(top / "sets" / "cats" / "10_sks cat" / "a.JPG")
    picture(top / ".hidden" / "a.png")
    picture(top / "masks" / "a.mask.png")
    picture(top / "old.run" / "samples" / "a.png")
    (top / "old.run" / "loss.csv").touch()
    (top / "text").mkdir()
    (top / "sets" / "round").symlink_to(top / "sets", target_is_directory=True)

    assert pack.folders.picture_folders() == ["sets", "sets/cats", "sets/cats/10_sks cat"]
    picture(top / "text" / "b.png")
    assert "text" in pack.folders.picture_folders()
    assert pack.folders.folder_names()[:3] == ["(none)", *pack.folders.DEMOS]


@pytest.mark.parametrize("name", ["../output", "/etc", "C:\\pictures", "a/../../b", "a\0"])
def test_names_out_of_the_input_folder(pack: Any, name: str) -> None:
    with pytest.raises(ValueError, match="leaves the input folder, expected the name of a folder inside it"):
        pack.folders.folder_path(name, "folder")


@pytest.mark.parametrize("name", ["cast", "", "."])
def test_a_folder_that_is_not_there(pack: Any, folders: Any, name: str) -> None:
    picture(folders.base / "input" / "cats" / "a.png")
    with pytest.raises(KeyError, match="no folder of pictures named") as caught:
        pack.folders.folder_path(name, "folder")
    assert ("did you mean 'cats'?" in str(caught.value)) == (name == "cast")
    assert pack.folders.folder_path("cats", "folder") == folders.base / "input" / "cats"


def test_the_state_changes_with_a_file_and_is_the_same_otherwise(pack: Any, folders: Any) -> None:
    file = picture(folders.base / "input" / "cats" / "a.png", "a cat")
    states = [pack.folders.state_of(["cats"])]
    assert pack.folders.state_of(["cats"]) == states[0]
    file.with_suffix(".txt").write_text("two cats")
    states.append(pack.folders.state_of(["cats"]))
    os.utime(file, (1, 1))
    states.append(pack.folders.state_of(["cats"]))
    picture(folders.base / "input" / "cats" / "below" / "b.png")
    states.append(pack.folders.state_of(["cats"]))
    (folders.base / "input" / "cats" / "gone.png").symlink_to("nowhere")
    states.append(pack.folders.state_of(["cats"]))

    assert len(set(states)) == 5
    assert pack.folders.state_of(["no such"])
    assert pack.folders.state_of(["../x"])


@pytest.mark.parametrize("number", [0, 1])
def test_the_demos_own_pictures(pack: Any, number: int) -> None:
    name = list(pack.folders.DEMOS)[number]
    tables = pack.folders.demo_tables(name)
    reading = pack.plan.read(pack.types.Dataset(tables["data"], tables["validation"]))
    said = pack.plan.report(reading, name)

    assert said["sizes"] == {"64x64": said["pictures"]["trained"]}
    assert said["pictures"]["held_out"] > 0
    assert (said["pictures"]["of_the_class"] > 0) == (number == 1)
    assert said["captions"]["without"] == 0


def test_pictures_of_the_graph_are_a_folder(pack: Any, folders: Any) -> None:
    batch = torch.rand(2, 40, 32, 3)
    other = torch.rand(1, 24, 24, 4)
    folder = pack.pictures.keep([batch, other], ["one", "two", "three"])

    assert folder.parent == folders.base / "output" / "loom" / "datasets"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["one", "two", "three"]
    levels = np.asarray(Image.open(folder / rows[1]["file_name"]))
    assert np.array_equal(levels, (batch[1] * 255).round().byte().numpy())
    assert Image.open(folder / rows[2]["file_name"]).mode == "RGBA"
    said = pack.plan.report(pack.plan.read(dataset(pack, folder, repeats=3)), "images")
    assert said["pictures"]["trained"] == 3
    assert said["epoch"] == 9
    assert said["repeats"] == {"3": 3}


def test_the_same_pictures_are_written_once_and_again_where_they_are_gone(pack: Any) -> None:
    images = [torch.rand(2, 16, 16, 3)]
    folder = pack.pictures.keep(images, ["a"])
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    (folder / "00002.png").unlink()

    assert pack.pictures.keep(images, ["a"]) == folder
    assert pack.pictures.keep(images, ["b"]) != folder
    after = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert set(after) == set(before) == {"00001.png", "00002.png", "metadata.jsonl"}
    assert [name for name in before if before[name] != after[name]] == ["00002.png"]


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        (None, None),
        (["", " "], None),
        (["a cat"], ["a cat"] * 3),
        (["a cat\n"], ["a cat"] * 3),
        (["a\n\nc"], ["a", "", "c"]),
        (["a", "b\nb", ""], ["a", "b b", ""]),
    ],
)
def test_captions(pack: Any, captions: Any, expected: Any) -> None:
    assert pack.pictures.captions_for(captions, 3) == expected


@pytest.mark.parametrize("captions", [["a", "b"], ["a\nb"]])
def test_another_number_of_captions(pack: Any, captions: list[str]) -> None:
    with pytest.raises(ValueError, match="there are 2 captions for 3 pictures; give one each, or one for all"):
        pack.pictures.captions_for(captions, 3)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.rand(0, 8, 8, 3), "there are no pictures"),
        (torch.full((1, 8, 8, 3), float("nan")), "NaN or infinity"),
        (torch.rand(1, 8, 8, 2), r"got \[8, 8, 2\]"),
    ],
)
def test_pictures_that_are_none(pack: Any, folders: Any, images: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pack.pictures.keep([images], None)
    assert not any((folders.base / "output").iterdir())


def test_faults_have_the_names_of_inputs(pack: Any, folders: Any) -> None:
    empty = folders.base / "input" / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"^folder: no pictures in "):
        pack.plan.read(dataset(pack, empty))
    cats = picture(folders.base / "input" / "cats" / "a.png").parent
    with pytest.raises(ValueError, match=r"no caption found for 1 of 1 pictures .* or set caption$"):
        pack.plan.read(dataset(pack, cats))
    with pytest.raises(ValueError, match=r"^LoRA Dataset: mask_floor: has no effect; it is for masks$"):
        pack.plan.read(dataset(pack, cats, caption="a cat", mask_floor=0.5))
    with pytest.raises(ValueError, match=r"^validation_split: 1 picture cannot be split"):
        pack.plan.read(dataset(pack, cats, {"split": 0.5}, caption="a cat"))


def test_sizes_are_said_only_where_the_resolution_is_known(pack: Any, folders: Any) -> None:
    cats = picture(folders.base / "input" / "cats" / "a.png", "a cat").parent
    picture(cats / "b.png", "", seed=1)
    known = pack.plan.report(pack.plan.read(dataset(pack, cats, resolution=64)), "cats")
    unknown = pack.plan.report(pack.plan.read(dataset(pack, cats, trigger="sks")), "cats")

    assert known["notes"]
    assert "sizes" in known
    assert unknown["notes"] == []
    assert "sizes" not in unknown
    assert unknown["captions"] == {"without": 1, "first": {"a.png": "sks, a cat", "b.png": "sks"}}


def test_the_sheet_shows_pictures_spread_over_all(pack: Any, folders: Any) -> None:
    folder = folders.base / "input" / "many"
    for number in range(30):
        picture(folder / f"{number:02}.png", "a caption of many words " * 9, seed=number)
    sheet = pack.plan.sheet(pack.plan.read(dataset(pack, folder)), "many")

    assert sheet.shape[0] == 1
    assert sheet.shape[3] == 3
    assert sheet.dtype == torch.float32
    assert sheet.min() >= 0
    assert sheet.max() <= 1
    one = pack.sheet.draw([(Image.new("RGBA", (10, 30), "red"), "word" * 60)], "one")
    assert one.shape[1] < sheet.shape[1]
    assert one.shape[2] < sheet.shape[2]
    # Each of 24 cells has a picture with noise in it.
    top, left, side = 2 * pack.sheet.MARGIN + pack.sheet.LINE, pack.sheet.MARGIN, pack.sheet.SIDE
    cell = (side + pack.sheet.MARGIN, side + pack.sheet.LINES * pack.sheet.LINE + pack.sheet.MARGIN)
    for number in range(24):
        x, y = left + number % 6 * cell[0], top + number // 6 * cell[1]
        assert sheet[0, y : y + side, x : x + side].std() > 0.1
