"""Folders of pictures: where captions come from, and what is said where there are none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lora_core.errors import ConfigError, CorruptFileError
from lora_core.train.config import DataSection, PriorSection
from lora_core.train.data.reading import Reading, read_pictures
from painted import noise, paint


def read(folder: Path, *, templates: tuple[str, ...] = (), prior: bool = False, **settings: Any) -> Reading:
    section = DataSection(**settings)
    return read_pictures(folder, "data.folder", section, select=section.select, templates=templates, prior=prior)


def captions(reading: Reading) -> dict[str, tuple[str, ...]]:
    return {picture.name: picture.captions for picture in reading.pictures}


def table(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")


def test_metadata_names_pictures_and_captions(tmp_path: Path):
    paint(tmp_path / "b.png", (40, 24))
    paint(tmp_path / "in" / "a.png")
    table(
        tmp_path,
        [
            {"file_name": "in/a.png", "text": "first", "weight": 2},
            {"file_name": "b.png", "text": "second", "repeats": 3},
        ],
    )

    reading = read(tmp_path, repeats=2)

    assert captions(reading) == {"b.png": ("second",), "in/a.png": ("first",)}
    assert [(each.size, each.repeats, each.weight) for each in reading.pictures] == [((40, 24), 6, 1), ((64, 64), 2, 2)]
    assert reading.notes == []


def test_pictures_that_the_metadata_does_not_name_are_left_out_with_a_note(tmp_path: Path):
    paint(tmp_path / "a.png")
    paint(tmp_path / "b.png")
    table(tmp_path, [{"file_name": "a.png", "text": "x"}])

    reading = read(tmp_path)

    assert captions(reading) == {"a.png": ("x",)}
    assert reading.notes == ["b.png left out: not in the metadata"]


def test_a_row_whose_picture_is_missing_is_a_fault(tmp_path: Path):
    paint(tmp_path / "a.png")
    table(tmp_path, [{"file_name": "a.png", "text": "x"}, {"file_name": "gone.png", "text": "y"}])

    with pytest.raises(CorruptFileError, match=r"metadata.jsonl: names gone.png, not in the folder"):
        read(tmp_path)


def test_rows_that_are_not_selected_need_no_picture(tmp_path: Path):
    paint(tmp_path / "a.png")
    paint(tmp_path / "b.png")
    rows = [("a.png", "train"), ("b.png", "heldout"), ("gone.png", "heldout")]
    table(tmp_path, [{"file_name": name, "text": name, "split": split} for name, split in rows])

    reading = read(tmp_path, select={"split": "train"})

    assert captions(reading) == {"a.png": ("a.png",)}
    assert reading.notes == []


def test_select_without_metadata_is_a_fault(tmp_path: Path):
    paint(tmp_path / "a.png", caption="x")

    with pytest.raises(ConfigError, match=r"data.select: there is no metadata.jsonl or metadata.csv"):
        read(tmp_path, select={"split": "train"})


def test_text_files(tmp_path: Path):
    paint(tmp_path / "a.png", caption="\ufeff a cat \n")
    paint(tmp_path / "b.png")
    (tmp_path / "b.caption").write_text("a dog\r\n\r\nwith a hat", "utf-8")
    paint(tmp_path / "deep" / "er" / "c.png", caption="a cup")

    assert captions(read(tmp_path)) == {
        "a.png": ("a cat",),
        "b.png": ("a dog with a hat",),
        "deep/er/c.png": ("a cup",),
    }


def test_lines_are_alternatives_with_wildcards(tmp_path: Path):
    paint(tmp_path / "a.png", caption="a cat\n\na {red|blue} cat\n")

    assert captions(read(tmp_path, wildcards=True)) == {"a.png": ("a cat", "a {red|blue} cat")}


def test_other_endings_of_text_files_with_or_without_a_dot(tmp_path: Path):
    paint(tmp_path / "a.png", caption="no")
    (tmp_path / "a.tags").write_text("yes", "utf-8")

    assert captions(read(tmp_path, caption_extensions=("tags",))) == {"a.png": ("yes",)}


def test_kohyas_folders(tmp_path: Path):
    paint(tmp_path / "10_sks dog" / "a.png")
    paint(tmp_path / "10_sks dog" / "b.png", caption="sks dog on grass")
    paint(tmp_path / "2_more" / "c.png")
    paint(tmp_path / "reg" / "1_dog" / "d.png")

    reading = read(tmp_path)

    assert captions(reading) == {
        "10_sks dog/a.png": ("sks dog",),
        "10_sks dog/b.png": ("sks dog on grass",),
        "2_more/c.png": ("more",),
        "reg/1_dog/d.png": ("dog",),
    }
    assert [each.repeats for each in reading.pictures] == [10, 10, 2, 1]
    assert [each.prior for each in reading.pictures] == [False, False, False, True]
    assert [each.group for each in reading.pictures] == ["10_sks dog", "10_sks dog", "2_more", "1_dog"]


def test_a_folder_with_repeats_0_is_left_out_and_many_repeats_are_noted(tmp_path: Path):
    paint(tmp_path / "0_off" / "a.png")
    paint(tmp_path / "2024_holiday" / "b.png")

    reading = read(tmp_path)

    assert captions(reading) == {"2024_holiday/b.png": ("holiday",)}
    assert reading.notes == [
        "2024_holiday: each picture counts 2024 times, as the folder's name says",
        f"{tmp_path.name}: 1 pictures have repeats 0 and are left out",
    ]


def test_a_folder_whose_pictures_all_have_repeats_0_is_a_fault(tmp_path: Path):
    paint(tmp_path / "0_off" / "a.png")

    with pytest.raises(ConfigError, match=r"all 1 pictures in .* have repeats 0"):
        read(tmp_path)


def test_one_caption_for_all_that_have_none(tmp_path: Path):
    paint(tmp_path / "a.png")
    paint(tmp_path / "b.png", caption="its own")

    assert captions(read(tmp_path, caption="a toy")) == {"a.png": ("a toy",), "b.png": ("its own",)}


def test_an_empty_text_file_is_a_caption_of_its_own(tmp_path: Path):
    paint(tmp_path / "a.png", caption="")
    paint(tmp_path / "b.png", caption="x")

    assert captions(read(tmp_path, caption="a toy")) == {"a.png": ("",), "b.png": ("x",)}


def test_templates_are_alternatives_for_pictures_without_a_caption(tmp_path: Path):
    paint(tmp_path / "5_thing" / "a.png")
    paint(tmp_path / "b.png", caption="its own")
    paint(tmp_path / "reg" / "1_dog" / "c.png")

    found = captions(read(tmp_path, templates=("a photo of <s1>", "<s1>")))

    assert found["5_thing/a.png"] == ("a photo of <s1>", "<s1>")
    assert found["b.png"] == ("its own",)
    assert found["reg/1_dog/c.png"] == ("dog",)


def test_pictures_of_the_class(tmp_path: Path):
    paint(tmp_path / "a.png")

    section = DataSection(caption="not this one", prior=PriorSection(caption="a photo of a dog", weight=0.5))
    (picture,) = read_pictures(tmp_path, "data.prior.folder", section, select={}, prior=True).pictures

    assert picture.captions == ("a photo of a dog",)
    assert picture.weight == 0.5
    assert picture.prior


def test_the_trigger_is_caption_enough(tmp_path: Path):
    paint(tmp_path / "a.png")

    assert captions(read(tmp_path, trigger="sks")) == {"a.png": ("",)}


@pytest.mark.parametrize("caption", [None, ""])
def test_without_captions_training_does_not_begin_and_the_places_are_listed(tmp_path: Path, caption: str | None):
    for number in range(5):
        paint(tmp_path / f"{number}.png", caption=caption)

    with pytest.raises(ConfigError) as error:
        read(tmp_path)

    message = str(error.value)
    assert "no caption found for 5 of 5 pictures (0.png, 1.png, 2.png and 2 more)" in message
    for place in ("metadata.jsonl (text)", "metadata.csv", "<name>.txt", "<name>.caption", "<repeats>_<caption>"):
        assert place in message
    assert str(tmp_path) in message
    assert message.endswith("write one of these, or set data.caption")


def test_some_pictures_without_a_caption_are_a_fault_too(tmp_path: Path):
    paint(tmp_path / "a.png", caption="x")
    paint(tmp_path / "b.png")
    (tmp_path / "b.TXT.bak").write_text("x", "utf-8")

    with pytest.raises(ConfigError, match=r"no caption found for 1 of 2 pictures \(b.png\)"):
        read(tmp_path)


def test_pictures_of_the_class_without_a_caption_name_their_setting(tmp_path: Path):
    paint(tmp_path / "a.png")

    with pytest.raises(ConfigError, match=r"set data.prior.caption"):
        read(tmp_path, prior=True, caption="the subject's")


def test_a_folder_that_is_not_there_is_named_with_the_nearest(tmp_path: Path):
    (tmp_path / "pictures").mkdir()

    with pytest.raises(ConfigError, match=r"data.folder: there is no folder '.*pictues'; did you mean '.*pictures'"):
        read(tmp_path / "pictues")


def test_a_folder_without_pictures_says_what_was_looked_for(tmp_path: Path):
    (tmp_path / "a.heic").write_bytes(b"x")
    paint(tmp_path / ".thumbnails" / "b.png")
    paint(tmp_path / "c.mask.png")

    with pytest.raises(ConfigError, match=r"no pictures in .*looked for .png, .*; a.heic cannot be read"):
        read(tmp_path)


def test_files_that_are_no_pictures_of_the_data_are_left_out(tmp_path: Path):
    paint(tmp_path / "a.png", caption="x")
    paint(tmp_path / "a.mask.png")
    (tmp_path / "._a.png").write_bytes(b"what macOS leaves on other disks")
    (tmp_path / "b.HEIC").write_bytes(b"x")

    reading = read(tmp_path)

    assert captions(reading) == {"a.png": ("x",)}
    assert reading.pictures[0].mask == tmp_path / "a.mask.png"
    assert reading.notes[0].startswith(f"{tmp_path.name}: b.HEIC left out: .heic")


def test_a_text_file_that_is_not_utf_8_is_named(tmp_path: Path):
    paint(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("Gemälde".encode("latin-1"))

    with pytest.raises(CorruptFileError, match=r"a.txt: is not UTF-8"):
        read(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_are_followed_but_not_in_circles(tmp_path: Path):
    paint(tmp_path / "elsewhere" / "a.png", caption="x")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(folder)

    assert captions(read(folder)) == {"link/a.png": ("x",)}


def test_the_order_is_that_of_the_names_whatever_the_disk_says(tmp_path: Path):
    for name in ("b.png", "a.jpg", "in/a.png", "B.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        noise((8, 8)).save(tmp_path / name)

    assert list(captions(read(tmp_path, caption="x"))) == ["B.png", "a.jpg", "b.png", "in/a.png"]


def test_samples_of_a_run_are_no_pictures_to_train_on(tmp_path: Path):
    """Its folder may lie among the pictures, and a run that goes on reads these again."""
    paint(tmp_path / "a.png", caption="x")
    paint(tmp_path / "loras" / "ink.run" / "samples" / "ink-000000-0.png")
    (tmp_path / "loras" / "ink.run" / "loss.csv").write_text("step,name,value\n", "utf-8")
    paint(tmp_path / "long.run" / "b.png", caption="a ski slope")

    assert captions(read(tmp_path)) == {"a.png": ("x",), "long.run/b.png": ("a ski slope",)}
