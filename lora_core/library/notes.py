"""What a user writes about a LoRA, put into the sidecar that the user's programs read. Nothing else here writes.

For each of notes, strength and trigger words: the sidecar that says something about it already (it is the one that is
shown), else the first that is there, else a new ``<stem>.json`` as A1111 writes it. All other fields of a sidecar stay.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, CorruptFileError
from ..io.atomic import atomic_file
from ..numeric import finite
from ..untrusted import MAX_TEXT, MAX_WORDS, clean, json_object, mapping, read_json, sequence, words

Json = dict[str, object]

NOTES, STRENGTH, WORDS = "notes", "strength", "trigger_words"
FIELDS = (NOTES, STRENGTH, WORDS)
_MOST = 100.0

# One at a time: two writers of one file would lose what the first one wrote.
_writing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Place:
    """A kind of sidecar that is written.

    Args:
        name: beside the file; with ``{stem}`` and ``{name}``.
        holds: whether a table says something about a field.
        put: sets a field in a table.
        takes: fields that it has a place for.
        indent: as its program writes it.
    """

    name: str
    holds: Callable[[Json, str], bool]
    put: Callable[[Json, str, object], None]
    takes: tuple[str, ...]
    indent: int


def read_fields(given: Mapping[str, object]) -> Json:
    """What may be written, checked: notes a text, strength a number or None, trigger words a list or a text.

    Raises:
        ConfigError: all faults at once.
    """
    faults: list[str] = []
    fields: Json = {}
    if NOTES in given:
        text = given[NOTES]
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            faults.append(f"notes: expected a text of at most {MAX_TEXT} characters")
        fields[NOTES] = clean(text)
    if STRENGTH in given:
        value = given[STRENGTH]
        number = None if isinstance(value, str) else finite(value)
        if value is not None and (number is None or abs(number) > _MOST):
            faults.append(f"strength: expected a number from {-_MOST:g} to {_MOST:g}, or null")
        fields[STRENGTH] = number
    if WORDS in given:
        value = given[WORDS]
        listed = [value] if isinstance(value, str) else sequence(value)
        if not isinstance(value, str | list) or not all(isinstance(word, str) for word in listed):
            faults.append("trigger_words: expected a list of texts")
        elif len(listed) > MAX_WORDS:
            faults.append(f"trigger_words: {len(listed)}, expected at most {MAX_WORDS}")
        fields[WORDS] = list(words(listed))
    if not fields:
        faults.append(f"nothing to write: expected {', '.join(FIELDS)}, or one of them")
    if faults:
        raise ConfigError("notes", faults)
    return fields


def write_notes(path: str | os.PathLike[str], fields: Json) -> list[str]:
    """Write fields of ``read_fields`` beside the file at ``path``; returns the names of the sidecars written.

    Raises:
        CorruptFileError: a sidecar that is there is broken, or cannot be written; nothing is changed then.
    """
    file = Path(path)
    with _writing:
        tables = {place: _table(file, place) for place in PLACES}
        changed: dict[Place, Json] = {}
        for field, value in fields.items():
            place = _place_of(field, tables)
            table = tables[place]
            if table is None:
                if value in (None, "", []):  # nothing to say, and nowhere that it was said
                    continue
                table = tables[place] = dict(_FRESH)
            place.put(table, field, value)
            changed[place] = table
        for place, table in changed.items():
            _write(_beside(file, place), table, place.indent)
    return [_beside(file, place).name for place in changed]


def _place_of(field: str, tables: Mapping[Place, Json | None]) -> Place:
    able = [(place, table) for place, table in tables.items() if table is not None and field in place.takes]
    holder = next((place for place, table in able if place.holds(table, field)), None)
    notes = next((place for place, table in able if place.holds(table, NOTES)), None)
    return holder or notes or (able[0][0] if able else A1111)


def _beside(file: Path, place: Place) -> Path:
    return file.with_name(place.name.format(stem=file.stem, name=file.name))


def _table(file: Path, place: Place) -> Json | None:
    target = _beside(file, place)
    if target.is_file():
        return read_json(target)
    if os.path.lexists(target):
        raise CorruptFileError(target.name, "a folder, or a link that leads nowhere, stands there", "Remove it.")
    return None


def _write(target: Path, table: Json, indent: int) -> None:
    try:
        raw = json.dumps(table, indent=indent, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a character, which only an escape can hold
        raw = json.dumps(table, indent=indent).encode()
    try:
        with atomic_file(target, size=len(raw), overwrite=True) as handle:
            handle.write(raw)
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        raise CorruptFileError(
            target.name, what, "Check the permissions of its folder, and the room on the disk."
        ) from (None)


# The fields of each program


def _a1111_holds(table: Json, field: str) -> bool:
    value = table.get(_A1111[field])
    return bool(finite(value)) if field == STRENGTH else bool(clean(value))


def _a1111_put(table: Json, field: str, value: object) -> None:
    if field == WORDS:
        value = ", ".join(str(word) for word in sequence(value))
    table[_A1111[field]] = 0 if value is None else value  # its way to say that none is preferred


_A1111 = {NOTES: "notes", STRENGTH: "preferred weight", WORDS: "activation text"}
_FRESH: Json = {"description": "", "activation text": "", "preferred weight": 0, "negative text": "", "notes": ""}


def _manager_holds(table: Json, field: str) -> bool:
    if field == NOTES:
        return bool(clean(table.get("notes")))
    if field == STRENGTH:
        return finite(_tips(table).get("strength")) is not None
    return bool(sequence(table.get("trainedWords")) or sequence(mapping(table.get("civitai")).get("trainedWords")))


def _manager_put(table: Json, field: str, value: object) -> None:
    if field == NOTES:
        table["notes"] = value
    elif field == STRENGTH:
        tips = _tips(table)
        if value is None:
            tips.pop("strength", None)
        else:
            tips["strength"] = value
        table["usage_tips"] = json.dumps(tips)
    else:
        # Its own place for them; those at the top, where some versions had them, would be shown beside these.
        table["civitai"] = {**mapping(table.get("civitai")), "trainedWords": value}
        if "trainedWords" in table:
            table["trainedWords"] = value


def _tips(table: Json) -> Json:
    """``usage_tips``, JSON in a text; a broken one is an error and is not written over."""
    value = table.get("usage_tips")
    return json_object(value, "usage_tips") if isinstance(value, str) and value.strip() else dict(mapping(value))


def _rgthree_holds(table: Json, field: str) -> bool:
    return bool(clean(table.get("userNote")) if field == NOTES else sequence(table.get("trainedWords")))


def _rgthree_put(table: Json, field: str, value: object) -> None:
    if field == NOTES:
        table["userNote"] = value
        return
    # A word is a text or {"word", ...}: what is known of one that stays, stays.
    before = {str(mapping(word).get("word", word)): word for word in sequence(table.get("trainedWords"))}
    table["trainedWords"] = [before.get(str(word), {"word": word}) for word in sequence(value)]


A1111 = Place("{stem}.json", _a1111_holds, _a1111_put, FIELDS, 4)
# In the order in which ``sidecars`` believes them. rgthree's has a least and a greatest strength, and none between.
PLACES = (
    A1111,
    Place("{stem}.metadata.json", _manager_holds, _manager_put, FIELDS, 2),
    Place("{name}.rgthree-info.json", _rgthree_holds, _rgthree_put, (NOTES, WORDS), 2),
)
