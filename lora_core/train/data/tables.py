"""metadata.jsonl and metadata.csv: a row a picture, as Hugging Face's image folders have it.

Columns that mean something: ``file_name`` (below the table's folder), the text column, ``weight`` of the loss and
``repeats`` in an epoch. Any other may be selected by: ``{"split": "train"}``, or ``{"group": "!Food & Drink"}`` for all
but one value.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

from ...errors import ConfigError, CorruptFileError, UnknownNameError


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of a table. ``captions`` is None where the row says nothing of it."""

    file: str
    captions: tuple[str, ...] | None
    weight: float
    repeats: int


def read_table(path: Path, text_column: str, select: Mapping[str, str]) -> dict[str, Row]:
    """Rows that are selected, by file name.

    Raises:
        CorruptFileError: a line that is no row.
        UnknownNameError: a column of ``select`` that no row has.
        ConfigError: no row is selected.
    """
    lines = list(_lines(path))
    columns = list(dict.fromkeys(column for _, line in lines for column in line))
    for column in select:
        if column not in columns:
            raise UnknownNameError(f"column of {path.name}", column, columns)
    rows: dict[str, Row] = {}
    for number, line in lines:
        if _selected(line, select):
            row = _row(path, number, line, text_column)
            rows[row.file] = row
    if not rows:
        values = {column: sorted({_text(line.get(column)) for _, line in lines})[:8] for column in select}
        raise ConfigError(path.name, [f"no row of {len(lines)} is selected by {dict(select)}; there is {values}"])
    return rows


def _selected(line: Mapping[str, object], select: Mapping[str, str]) -> bool:
    for column, wanted in select.items():
        found = _text(line.get(column))
        if wanted.startswith("!"):
            if found == wanted[1:]:
                return False
        elif found != wanted:
            return False
    return True


def _text(value: object) -> str:
    """A value as it stands in JSON, without quotes: true, 3, text; "" for what is missing."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorruptFileError(path.name, f"is not UTF-8 ({error.reason})", "Save it as UTF-8.") from None
    if path.suffix == ".csv":
        reader = csv.DictReader(text.splitlines(keepends=True))
        for line in reader:
            # None is the column of values that have no heading.
            yield reader.line_num, {key: value for key, value in line.items() if isinstance(key, str)}
        return
    for number, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            line = json.loads(content)
        except ValueError as error:
            raise _wrong(path, number, f"is not JSON ({error})") from None
        if not isinstance(line, dict):
            raise _wrong(path, number, "is not a JSON object")
        yield number, line


def _row(path: Path, number: int, line: Mapping[str, object], text_column: str) -> Row:
    name = line.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise _wrong(path, number, f"has no file_name; its columns are {', '.join(line) or 'none'}")
    file = PurePosixPath(name.strip().replace("\\", "/"))
    if file.is_absolute() or ".." in file.parts or ":" in file.parts[0]:
        raise _wrong(path, number, f"names the file {name!r} outside of its folder")
    weight = _number(path, number, line, "weight")
    repeats = _number(path, number, line, "repeats")
    if repeats != int(repeats):
        raise _wrong(path, number, f"has repeats {repeats:g}, which is not a whole number")
    return Row(str(file), _captions(path, number, line, text_column), weight, int(repeats))


def _captions(path: Path, number: int, line: Mapping[str, object], column: str) -> tuple[str, ...] | None:
    value = line.get(column)
    if value is None:
        return None
    some = cast("list[object]", value) if isinstance(value, list) else [value]
    texts = [each.strip() for each in some if isinstance(each, str)]
    if len(texts) != len(some) or not texts:
        raise _wrong(path, number, f"has a {column} that is neither text nor a list of texts")
    return tuple(texts)


def _number(path: Path, number: int, line: Mapping[str, object], column: str) -> float:
    value = line.get(column)
    if value is None or value == "":
        return 1.0
    try:
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        result = math.nan
    if not math.isfinite(result) or result < 0:
        raise _wrong(path, number, f"has {column} {_text(value)!r}, which is not a number from 0 on")
    return result


def _wrong(path: Path, number: int, what: str) -> CorruptFileError:
    return CorruptFileError(path.name, f"line {number} {what}", "Correct the line.")
