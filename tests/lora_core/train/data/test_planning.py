"""What the data of a run is: held out or trained on, what is noted, what metadata and states say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_core.errors import ConfigError
from lora_core.train.config import DataSection, ValidationSection
from lora_core.train.data import TrainingData
from painted import Arithmetic, Told, noise, open_data, paint, paint_some


def test_masks_without_any_mask_are_a_fault(tmp_path: Path):
    paint_some(tmp_path, 2)

    with pytest.raises(ConfigError, match=r"data.masks: none of 2 pictures has <name>.mask.png or an alpha channel"):
        open_data(tmp_path, masks="auto")


def test_the_validation_split_goes_by_content(tmp_path: Path):
    """The same pictures are held out under other names, and copies go the same way."""
    for number in range(10):
        paint(tmp_path / "one" / f"{number}.png", seed=number, caption="x")
        paint(tmp_path / "two" / f"renamed-{9 - number}.png", seed=number, caption="x")
        paint(tmp_path / "two" / "copies" / f"{number}.png", seed=number, caption="x")
    one = open_data(tmp_path / "one", validation={"split": 0.3, "train_subset": 2})
    two = open_data(tmp_path / "two", validation={"split": 0.3}, seed=5)

    def digests(data: TrainingData, held_out: bool = True) -> set[str]:
        held = {sample.picture for sample in data.held_out}
        return {each.sha256 for index, each in enumerate(data.pictures) if (index in held) == held_out}

    assert len(one.held_out) == 3
    assert len(two.held_out) == 6
    assert digests(one) == digests(two)
    assert digests(two).isdisjoint(digests(two, held_out=False))
    drawn = {sample.picture for step in range(50) for sample in one.samples(step, 4)}
    assert drawn == set(range(7))
    assert len(one.train_subset) == 2
    assert {sample.picture for sample in one.train_subset} <= drawn


def test_held_out_pictures_are_seen_the_same_way_each_time(tmp_path: Path):
    for number in range(4):
        paint(tmp_path / f"{number}.png", (100, 64), number, "a, b, c")
    data = open_data(
        tmp_path,
        crop="random",
        flip=1.0,
        colour_jitter=0.5,
        caption_dropout=1.0,
        shuffle_tags=True,
        trigger="sks",
        validation={"split": 0.5},
    )

    assert [sample.position for sample in data.held_out] == [0, 1]
    for sample in data.held_out:
        assert sample.caption == "sks, a, b, c"
        assert (sample.view.corner, sample.view.flip, sample.view.jitter) == ((18, 0), False, None)


def test_a_validation_folder_leaves_out_what_is_trained_on(tmp_path: Path):
    paint_some(tmp_path / "data", 3)
    paint_some(tmp_path / "check", 5)
    data, told = open_data(tmp_path / "data", validation={"folder": str(tmp_path / "check")}), Told()
    data.prepare(Arithmetic(), None, told, text=True)  # type: ignore[arg-type]

    assert [sample.caption for sample in data.held_out] == ["thing 3", "thing 4"]
    assert told.warnings == ["validation: 3 pictures that are trained on are left out"]
    with pytest.raises(ConfigError, match=r"validation.folder: all 3 pictures are trained on"):
        open_data(tmp_path / "data", validation={"folder": str(tmp_path / "data")})


def test_rows_of_a_validation_folder_can_be_selected(tmp_path: Path):
    rows = [{"file_name": f"{n}.png", "text": f"{n}", "split": "train" if n < 3 else "heldout"} for n in range(5)]
    for number, row in enumerate(rows):
        paint(tmp_path / row["file_name"], seed=number)
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")

    data = open_data(
        tmp_path, select={"split": "train"}, validation={"folder": str(tmp_path), "select": {"split": "heldout"}}
    )

    assert [sample.caption for sample in data.held_out] == ["3", "4"]
    assert data.notes == ()


@pytest.mark.parametrize(("share", "held_out"), [(0.01, 1), (0.5, 2), (0.99, 3)])
def test_at_least_one_picture_is_on_each_side(tmp_path: Path, share: float, held_out: int):
    data = open_data(paint_some(tmp_path, 4), validation={"split": share})

    assert (len(data.held_out), data.epoch_size) == (held_out, 4 - held_out)


def test_one_picture_cannot_be_split(tmp_path: Path):
    paint_some(tmp_path, 1)

    with pytest.raises(ConfigError, match=r"validation.split: 1 picture cannot be split"):
        open_data(tmp_path, validation={"split": 0.5})


def test_the_digest_follows_contents_and_settings_and_not_names_of_folders(tmp_path: Path):
    def digest(folder: str = "a", **settings: Any) -> str:
        return open_data(tmp_path / folder, **settings).digest

    for folder in ("a", "b", "c", "d"):
        paint_some(tmp_path / folder, 3)
    (tmp_path / "c" / "p1.txt").write_text("another", "utf-8")
    noise((64, 64), 9).save(tmp_path / "d" / "p1.png")

    assert digest("a") == digest("b") == digest("a", workers=3, cache_latents=False)
    changed = [digest("c"), digest("d"), digest(flip=0.5), digest(resolution=32), digest(repeats=2)]
    assert len({digest("a"), *changed}) == 6


def test_the_digest_is_that_of_what_is_trained_on(tmp_path: Path):
    """Other pictures to measure on are no other training."""
    for folder in ("data", "check"):
        paint_some(tmp_path / folder, 3)
    paint(tmp_path / "check" / "new.png", seed=40, caption="new")

    checked = open_data(tmp_path / "data", validation={"folder": str(tmp_path / "check")})

    assert len(checked.held_out) == 1
    assert checked.digest == open_data(tmp_path / "data").digest
    assert open_data(tmp_path / "data", validation={"split": 0.4}).digest != checked.digest


def test_tags_are_counted_by_folder(tmp_path: Path):
    paint(tmp_path / "3_cats" / "a.png", seed=1, caption="Cat, red")
    paint(tmp_path / "3_cats" / "b.png", seed=2, caption="cat, blue")
    paint(tmp_path / "1_dogs" / "c.png", seed=3)

    assert open_data(tmp_path).tag_frequency() == {"3_cats": {"cat": 2, "red": 1, "blue": 1}, "1_dogs": {"dogs": 1}}


def test_tags_of_pictures_that_are_held_out_are_not_counted(tmp_path: Path):
    for number in range(4):
        paint(tmp_path / f"{number}.png", seed=number, caption=f"thing {number}")

    data = open_data(tmp_path, validation={"split": 0.5})

    held = {data.pictures[sample.picture].captions[0] for sample in data.held_out}
    assert set(data.tag_frequency()[tmp_path.name]) == {f"thing {number}" for number in range(4)} - held


def test_small_pictures_are_noted(tmp_path: Path):
    paint(tmp_path / "a.png", (40, 40), caption="x")
    paint(tmp_path / "b.png", (100, 100), caption="x")

    assert open_data(tmp_path).notes == ("1 of 2 pictures are smaller than the size they are trained at: enlarged",)
    assert open_data(tmp_path, upscale=True).notes == ()
    (note,) = open_data(tmp_path, buckets=True, bucket_step=8).notes
    assert note.startswith("1 of 2 pictures are smaller than 64x64 and are trained on at their own size")


def test_pictures_that_lose_much_to_the_crop_are_noted(tmp_path: Path):
    paint(tmp_path / "a.png", (64, 128), caption="x")
    paint(tmp_path / "b.png", (64, 90), caption="x")

    assert open_data(tmp_path).notes == ("1 of 2 pictures lose more than a third to the crop: see buckets, max_aspect",)
    assert open_data(tmp_path, buckets=True, bucket_step=8).notes == ()


def test_placeholder_words_that_no_caption_has_are_a_fault(tmp_path: Path):
    paint_some(tmp_path, 2)
    section = DataSection(folder=str(tmp_path), resolution=(64, 64))

    def open_with(words: tuple[str, ...], rules: DataSection = section) -> None:
        TrainingData.open(rules, ValidationSection(), seed=0, size_step=8, latent_step=8, words=words)

    with pytest.raises(ConfigError, match=r"tokens.names: no caption has <s1>, <s2>: write it in captions"):
        open_with(("<s1>", "<s2>"))
    open_with(("<s1>",), section.model_copy(update={"trigger": "<s1>"}))
    open_with(("thing",))


def test_the_demos_data_as_its_runs_take_it(repository: Path):
    """An epoch has each picture as often as its row of the metadata says: the plainest names come several times."""
    folder = repository / "demo" / "data" / "flat"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]
    trained = [row for row in rows if row["split"] == "train" and row["group"] != "Food & Drink"]
    held_out = [row for row in rows if row["split"] == "heldout"]

    data = open_data(
        folder,
        select={"split": "train", "group": "!Food & Drink"},
        validation={"folder": str(folder), "select": {"split": "heldout"}},
    )

    assert data.epoch_size == sum(row.get("repeats", 1) for row in trained)
    assert any("repeats" in row for row in trained)
    assert sorted(sample.caption for sample in data.held_out) == sorted(row["text"] for row in held_out)
    assert {sample.view.resized for sample in data.held_out} == {(64, 64)}


@pytest.mark.parametrize(
    ("validation", "measured"), [({}, 0), ({"every": 10}, 3), ({"prompts": ("a tree",)}, 3), ({"split": 0.4}, 2)]
)
def test_a_few_training_pictures_are_measured_where_validation_is_asked_for(
    tmp_path: Path, validation: dict[str, Any], measured: int
):
    paint_some(tmp_path, 3)

    assert len(open_data(tmp_path, validation=validation).train_subset) == measured


def test_a_folder_of_the_class_inside_of_the_pictures_is_not_trained_on_as_the_subject(tmp_path: Path):
    paint_some(tmp_path, 2)
    paint_some(tmp_path / "class", 3)

    data = open_data(tmp_path, prior={"folder": str(tmp_path / "class"), "caption": "a thing"})

    assert [(each.name, each.prior) for each in data.pictures] == [
        *((f"p{number}.png", False) for number in range(2)),
        *((f"p{number}.png", True) for number in range(3)),
    ]


@pytest.mark.parametrize("prior", [{"caption": "a thing"}, {"weight": 0.5}, {"select": {"of": "class"}}])
def test_settings_of_pictures_of_the_class_without_any(tmp_path: Path, prior: dict[str, Any]):
    """They would keep nothing, and nobody would know."""
    paint_some(tmp_path, 2)

    with pytest.raises(ConfigError, match=r"data.prior: there are no pictures of the class: give their data.prior.fol"):
        open_data(tmp_path, prior=prior)


def test_a_reg_folder_that_is_named_too_is_read_once(tmp_path: Path):
    paint_some(tmp_path, 2)
    paint_some(tmp_path / "reg", 3)

    data = open_data(tmp_path, prior={"folder": str(tmp_path / "reg")})

    assert sum(each.prior for each in data.pictures) == 3
    assert len(data.pictures) == 5


def test_pictures_inside_of_the_folder_of_the_class(tmp_path: Path):
    paint_some(tmp_path, 3)
    paint_some(tmp_path / "subject", 2)

    data = open_data(tmp_path / "subject", prior={"folder": str(tmp_path)})

    assert [each.prior for each in data.pictures] == [False, False, True, True, True]


def test_one_folder_for_both_is_told_apart_by_its_table(tmp_path: Path):
    paint_some(tmp_path, 2)
    rows = [{"file_name": f"p{number}.png", "text": "x", "of": of} for number, of in enumerate(("it", "class"))]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")

    data = open_data(tmp_path, select={"of": "it"}, prior={"folder": str(tmp_path), "select": {"of": "class"}})

    assert [(each.name, each.prior) for each in data.pictures] == [("p0.png", False), ("p1.png", True)]


def test_a_table_may_name_the_pictures_of_the_validation_below_it(tmp_path: Path):
    paint_some(tmp_path, 2)
    paint_some(tmp_path / "held", 1)
    rows = [{"file_name": file, "text": "x"} for file in ("p0.png", "p1.png", "held/p0.png")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    paint(tmp_path / "held" / "p0.png", seed=7, caption="held out")

    data = open_data(tmp_path, validation={"folder": str(tmp_path / "held")})

    assert [data.pictures[sample.picture].captions for sample in data.held_out] == [("held out",)]
    assert len(data.pictures) == 3
