"""metadata.jsonl and metadata.csv: rows, columns that mean something, rows that are selected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_core.errors import ConfigError, CorruptFileError, UnknownNameError
from lora_core.train.data.tables import read_table

ROWS: list[dict[str, Any]] = [
    {"file_name": "a.png", "text": "a cat", "group": "Animals", "core": True, "split": "train"},
    {"file_name": "in/b.png", "text": "a pear", "group": "Food & Drink", "core": False, "split": "train"},
    {"file_name": "c.png", "text": "a cup", "group": "Objects", "core": True, "split": "heldout"},
]


def jsonl(folder: Path, rows: list[Any]) -> Path:
    path = folder / "metadata.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    ("select", "files"),
    [
        ({}, ["a.png", "in/b.png", "c.png"]),
        ({"split": "train"}, ["a.png", "in/b.png"]),
        ({"split": "train", "group": "!Food & Drink"}, ["a.png"]),
        ({"core": "true"}, ["a.png", "c.png"]),
        ({"core": "!true"}, ["in/b.png"]),
    ],
)
def test_rows_are_selected_by_their_columns(tmp_path: Path, select: dict[str, str], files: list[str]):
    assert list(read_table(jsonl(tmp_path, ROWS), "text", select)) == files


def test_a_column_that_no_row_has_is_named_with_the_nearest(tmp_path: Path):
    with pytest.raises(UnknownNameError, match=r"metadata.jsonl named 'spilt': did you mean 'split'"):
        read_table(jsonl(tmp_path, ROWS), "text", {"spilt": "train"})


def test_where_no_row_is_selected_the_values_are_listed(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no row of 3 .*'heldout', 'train'"):
        read_table(jsonl(tmp_path, ROWS), "text", {"split": "Train"})


def test_weight_and_repeats_are_columns(tmp_path: Path):
    row = read_table(jsonl(tmp_path, [{**ROWS[0], "weight": 0.5, "repeats": 3}]), "text", {})["a.png"]

    assert (row.weight, row.repeats, row.captions) == (0.5, 3, ("a cat",))


def test_csv_with_a_quoted_caption_over_two_lines_and_a_byte_order_mark(tmp_path: Path):
    path = tmp_path / "metadata.csv"
    path.write_text('\ufefffile_name,caption,weight\na.png,"a cat, red\nand large",2\nb.png,,\n', "utf-8")

    rows = read_table(path, "caption", {})

    assert rows["a.png"].captions == ("a cat, red\nand large",)
    assert rows["a.png"].weight == 2
    assert rows["b.png"].captions == ("",)
    assert rows["b.png"].weight == 1


def test_a_list_of_texts_is_alternatives_and_a_missing_text_is_none(tmp_path: Path):
    rows = read_table(jsonl(tmp_path, [{"file_name": "a.png", "text": ["x", "y"]}, {"file_name": "b.png"}]), "text", {})

    assert rows["a.png"].captions == ("x", "y")
    assert rows["b.png"].captions is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{oops", r"line 1 is not JSON"),
        ("[1]", r"line 1 is not a JSON object"),
        ({"name": "a.png"}, r"line 1 has no file_name; its columns are name"),
        ({"file_name": "../a.png"}, r"outside of its folder"),
        ({"file_name": "/etc/a.png"}, r"outside of its folder"),
        ({"file_name": "C:\\a.png"}, r"outside of its folder"),
        ({"file_name": "a.png", "weight": "heavy"}, r"has weight 'heavy', which is not a number"),
        ({"file_name": "a.png", "weight": -1}, r"has weight '-1'"),
        ('{"file_name": "a.png", "weight": NaN}', r"has weight 'NaN'"),
        ({"file_name": "a.png", "repeats": 1.5}, r"repeats 1.5, which is not a whole number"),
        ({"file_name": "a.png", "text": 3}, r"neither text nor a list of texts"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, row: Any, message: str):
    with pytest.raises(CorruptFileError, match=message):
        read_table(jsonl(tmp_path, [row]), "text", {})


def test_a_table_that_is_not_utf_8_says_so(tmp_path: Path):
    path = tmp_path / "metadata.jsonl"
    path.write_bytes('{"file_name": "ä.png"}'.encode("latin-1"))

    with pytest.raises(CorruptFileError, match="not UTF-8"):
        read_table(path, "text", {})
