"""From a folder to ``Picture``s: files found, captions joined to them, each looked at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from ...errors import ConfigError, CorruptFileError
from ..config import DataSection
from .folder import IMAGES, MASK, TABLES, UNREAD, Place, places
from .picture import Picture, look_at_all
from .tables import Row, read_table

_SHOWN = 3
_MANY_REPEATS = 100


@dataclass(frozen=True, slots=True)
class _Found:
    """A picture before its file is looked at; ``captions`` is None where none was found."""

    path: Path
    name: str
    captions: tuple[str, ...] | None
    repeats: int
    weight: float
    prior: bool
    group: str


@dataclass(slots=True)
class Reading:
    """What a folder gave, and notes for the user on what was left out."""

    pictures: list[Picture] = field(default_factory=list[Picture])
    notes: list[str] = field(default_factory=list[str])


def read_pictures(
    folder: Path,
    setting: str,
    rules: DataSection,
    *,
    select: Mapping[str, str],
    templates: Sequence[str] = (),
    prior: bool = False,
    without: Collection[Path] = (),
) -> Reading:
    """All pictures of a folder in the order of their names.

    Args:
        folder: where they are.
        setting: the name of the setting that says so, for errors.
        rules: how captions are found.
        select: columns of the table and their values.
        templates: captions for pictures without one.
        prior: all are pictures of the class.
        without: folders in it that are for something else.

    Raises:
        ConfigError: no folder, no pictures, or pictures without a caption.
        CorruptFileError: a picture, text file or table that cannot be read.
    """
    _check_folder(folder, setting)
    reading = Reading()
    looked = list(places(folder, without))
    found = sorted(_found(looked, rules, select, templates, prior, without, reading.notes), key=lambda each: each.name)
    if not found:
        raise ConfigError(setting, [_no_pictures(folder, looked)])
    _check_captions(folder, found, rules)
    if unread := [name for place in looked for name in place.unread]:
        reading.notes.append(f"{folder.name}: {_some(unread)} left out: {', '.join(UNREAD)} cannot be read")
    kept = [each for each in found if each.repeats]
    if not kept:
        raise ConfigError(setting, [f"all {len(found)} pictures in {str(folder)!r} have repeats 0"])
    if len(kept) < len(found):
        reading.notes.append(f"{folder.name}: {len(found) - len(kept)} pictures have repeats 0 and are left out")
    for each, seen in zip(kept, look_at_all([each.path for each in kept], folder), strict=True):
        mask = each.path.with_name(each.path.stem + MASK)
        reading.pictures.append(
            Picture(
                each.path,
                each.name,
                seen.size,
                seen.sha256,
                each.captions or ("",),
                each.repeats * rules.repeats,
                each.weight * (rules.prior.weight if each.prior else 1.0),
                each.prior,
                each.group,
                mask if mask.is_file() else None,
                seen.alpha,
            )
        )
    return reading


def _check_folder(folder: Path, setting: str) -> None:
    if folder.is_dir():
        return
    parent = folder.parent
    beside = [each.name for each in parent.iterdir() if each.is_dir()] if parent.is_dir() else []
    near = get_close_matches(folder.name, beside, n=1)
    hint = f"; did you mean {str(parent / near[0])!r}?" if near else "; give the folder that holds the pictures"
    raise ConfigError(setting, [f"there is no folder {str(folder)!r}{hint}"])


def _found(
    looked: Sequence[Place],
    rules: DataSection,
    select: Mapping[str, str],
    templates: Sequence[str],
    prior: bool,
    without: Collection[Path],
    notes: list[str],
) -> list[_Found]:
    tables = {place.table: read_table(place.table, rules.text_column, select) for place in looked if place.table}
    if select and not tables:
        raise ConfigError("data.select", [f"there is no {' or '.join(TABLES)} whose rows could be selected"])
    found: list[_Found] = []
    used: dict[Path, set[str]] = {path: set() for path in tables}
    unlisted: list[str] = []
    for place in looked:
        if place.repeats > _MANY_REPEATS and place.images:
            notes.append(f"{place.name}: each picture counts {place.repeats} times, as the folder's name says")
        for image in place.images:
            path = place.path / image
            row = None
            if place.table is not None:
                file = path.relative_to(place.table.parent).as_posix()
                row = tables[place.table].get(file)
                if row is None:
                    unlisted.append(file)
                    continue
                used[place.table].add(file)
            of_class = prior or place.prior
            found.append(
                _Found(
                    path,
                    f"{place.name}/{image}" if place.name else image,
                    _own_captions(path, row, rules) or _common_captions(place, rules, templates, of_class),
                    place.repeats * (row.repeats if row else 1),
                    row.weight if row else 1.0,
                    of_class,
                    place.path.name,
                )
            )
    for path, rows in tables.items():
        elsewhere = [one.resolve() for one in without]
        absent = [file for file in rows if file not in used[path]]
        if missing := [file for file in absent if not _is_in(path.parent / file, elsewhere)]:
            raise CorruptFileError(
                path.name, f"names {_some(missing)}, not in the folder", "Put them there, or take out their rows."
            )
    if unlisted and not select:
        notes.append(f"{_some(unlisted)} left out: not in the metadata")
    return found


def _is_in(file: Path, folders: Collection[Path]) -> bool:
    return any(file.resolve().is_relative_to(folder) for folder in folders)


def _own_captions(path: Path, row: Row | None, rules: DataSection) -> tuple[str, ...] | None:
    """From the table, or else from a text file."""
    if row is not None and row.captions is not None:
        return row.captions
    for extension in rules.caption_extensions:
        file = path.with_suffix("." + extension.lstrip("."))
        if not file.is_file():
            continue
        try:
            lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise CorruptFileError(file.name, f"is not UTF-8 ({error.reason})", "Save it as UTF-8.") from None
        return tuple(lines or [""]) if rules.wildcards else (" ".join(lines),)
    return None


def _common_captions(place: Place, rules: DataSection, templates: Sequence[str], prior: bool) -> tuple[str, ...] | None:
    """For a picture that has none of its own: templates, the folder's name, or the one caption of the settings."""
    if templates and not prior:
        return tuple(templates)
    caption = place.caption or (rules.prior.caption if prior else rules.caption)
    if not caption and rules.trigger and not prior:
        return ("",)  # the trigger is the caption
    return (caption,) if caption else None


def _check_captions(folder: Path, found: Sequence[_Found], rules: DataSection) -> None:
    """Stop where pictures have no caption, or where all captions are empty."""
    bare = [each for each in found if each.captions is None]
    if not bare and not rules.trigger and not any("".join(each.captions or ()) for each in found):
        bare = list(found)
    if not bare:
        return
    endings = [f"<name>{'.' + extension.lstrip('.')}" for extension in rules.caption_extensions]
    places = ", ".join([*(f"{name} ({rules.text_column})" for name in TABLES), *endings, "folders <repeats>_<caption>"])
    setting = "data.prior.caption" if bare[0].prior else "data.caption"
    raise ConfigError(
        str(folder),
        [
            f"no caption found for {len(bare)} of {len(found)} pictures ({_some([each.name for each in bare])}); "
            f"looked for {places}; write one of these, or set {setting}"
        ],
    )


def _no_pictures(folder: Path, looked: Sequence[Place]) -> str:
    unread = [name for place in looked for name in place.unread]
    others = f"; {_some(unread)} cannot be read: save as PNG or JPEG" if unread else ""
    return f"no pictures in {str(folder)!r} or the folders in it; looked for {', '.join(IMAGES)}{others}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
