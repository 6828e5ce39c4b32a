"""What lies in a folder of pictures: images, their text files, tables, and kohya's folder names.

    folder/metadata.jsonl or .csv     one row a picture: file_name, text, and more columns
    folder/a.png, a.txt, a.mask.png   a text file and a mask a picture
    folder/10_sks dog/a.png           kohya: each counts 10 times; `sks dog` where there is no text file
    folder/reg/1_dog/a.png            kohya: pictures of the class

Folders are searched to any depth; what begins with a dot is left out, and so is what runs leave behind: their samples
would be pictures of the same run when it goes on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jfif")
# Pictures that a user may take for read.
UNREAD = (".heic", ".heif", ".jxl", ".psd", ".raw", ".svg")
MASK = ".mask.png"
TABLES = ("metadata.jsonl", "metadata.csv")

_KOHYA = re.compile(r"(\d+)_(.+)")


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with pictures in it.

    Args:
        path: the folder.
        name: its path below the top, with ``/``; "" for the top.
        images: file names, sorted.
        unread: names of pictures in formats that cannot be read.
        repeats, caption: of kohya's name of this folder or of the nearest above it; 1 and None without.
        prior: whether it lies in a ``reg`` folder.
        table: the metadata that governs it, in it or in a folder above it.
    """

    path: Path
    name: str
    images: tuple[str, ...]
    unread: tuple[str, ...]
    repeats: int = 1
    caption: str | None = None
    prior: bool = False
    table: Path | None = None


def places(folder: Path, without: Collection[Path] = ()) -> Iterator[Place]:
    """All folders below one that hold pictures or tables, itself first, but for those ``without``."""
    yield from _below(Place(folder, "", (), ()), frozenset(), {path.resolve() for path in without} - {folder.resolve()})


def _below(above: Place, seen: frozenset[Path], without: Collection[Path]) -> Iterator[Place]:
    real = above.path.resolve()
    if real in seen:  # a link to a folder that it lies in
        return
    entries = sorted(entry for entry in above.path.iterdir() if not entry.name.startswith("."))
    table = next((above.path / name for name in TABLES if (above.path / name).is_file()), above.table)
    here = Place(
        above.path,
        above.name,
        tuple(entry.name for entry in entries if is_picture(entry) and entry.is_file()),
        tuple(entry.name for entry in entries if entry.suffix.lower() in UNREAD and entry.is_file()),
        above.repeats,
        above.caption,
        above.prior,
        table,
    )
    if here.images or here.unread or table != above.table:
        yield here
    for entry in entries:
        if entry.is_dir() and not _is_run(entry) and entry.resolve() not in without:
            named = _KOHYA.fullmatch(entry.name)
            below = Place(
                entry,
                f"{above.name}/{entry.name}" if above.name else entry.name,
                (),
                (),
                int(named[1]) if named else above.repeats,
                named[2].strip() if named else above.caption,
                above.prior or entry.name.lower() == "reg",
                table,
            )
            yield from _below(below, seen | {real}, without)


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGES and not path.name.lower().endswith(MASK)


def _is_run(folder: Path) -> bool:
    return folder.suffix == ".run" and (folder / "loss.csv").is_file()
