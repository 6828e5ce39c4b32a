"""What a list of LoRAs shows of one file, as JSON text that is made once and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..architectures import ARCHITECTURES
from ..collection import no_collection
from ..errors import LoomError
from ..index import fault_of, look_at
from ..metadata import read_metadata
from ..sidecars import read_sidecars
from ..untrusted import clean, mapping, sequence

Json = dict[str, object]

NEW = "new"
DESCRIBED = "described"
FAILED = "failed"

# Without a file that could be read.
_BLANK: Json = {
    "title": "",
    "architecture": "",
    "base": "",
    "format": "",
    "types": [],
    "rank": "",
    "used": 0,
    "total": 0,
    "problems": 0,
    "trigger_words": [],
    "strength": None,
    "preview": False,
    "state": NEW,
    "error": None,
}


class Described(NamedTuple):
    """A file that was looked at.

    Args:
        fields: JSON of what an entry shows, without name, size, time and hashes.
        report: JSON of the report of ``index.look_at``; None where the file could not be read.
        metadata: of the header; empty where it could not be read.
        error: one line, or None.
        lasting: the same file will say the same again; False where the disk, not the file, was at fault.
    """

    fields: str
    report: str | None
    metadata: Mapping[str, str]
    error: str | None
    lasting: bool = True


def dumps(value: object) -> str:
    """JSON for a page: no NaN, no spaces; ASCII, for a name on disk may hold bytes that are no text."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


BLANK = dumps(_BLANK)


def describe_file(path: str) -> Described:
    """Look at a file and what lies beside it. Never raises: the library goes on, and the entry says what is wrong."""
    file = Path(path)
    beside = read_sidecars(file)
    fields = _BLANK | {
        "trigger_words": list(beside.trigger_words),
        "strength": beside.strength,
        "preview": beside.preview is not None,
    }
    try:
        with no_collection():  # the first file builds the tables of all families; its source is closed
            look = look_at(file)
    except (LoomError, OSError) as error:
        return _failed(fields, file, fault_of(file, error), lasting=isinstance(error, LoomError))
    except Exception as error:
        # A fault of ours on a file that we do not know yet: the rest of the library must not suffer for it.
        return _failed(fields, file, f"{file.name}: cannot be read ({type(error).__name__}: {error}).", lasting=False)
    header = read_metadata(look.metadata)
    shown = {"title": header.title, "preview": beside.preview is not None or bool(header.thumbnail)}
    fields |= _of_report(look.report) | shown | {"state": DESCRIBED}
    return Described(dumps(fields), dumps(look.report), look.metadata, None)


def failed(file: Path, line: str) -> Described:
    """A file of which only the fault is known; it is looked at again at the next start."""
    return _failed(_BLANK, file, line, lasting=False)


def _failed(fields: Json, file: Path, line: str, *, lasting: bool) -> Described:
    said = clean(line.replace(f"{file.parent}/", "").replace(f"{file.parent}\\", ""), 2000)
    return Described(dumps(fields | {"state": FAILED, "error": said}), None, {}, said, lasting)


def _of_report(report: Json) -> Json:
    tensors, ranks = mapping(report["tensors"]), [int(rank) for rank in mapping(report["ranks"])]
    architecture = str(report["architecture"])
    return {
        "architecture": architecture,
        "base": ARCHITECTURES.get(architecture).title,
        "format": report["format"],
        "types": list(mapping(report["adapter_types"])),
        "rank": "" if not ranks else f"{ranks[0]}" if ranks[0] == ranks[-1] else f"{ranks[0]}-{ranks[-1]}",
        "used": tensors["used"],
        "total": tensors["total"],
        "problems": len(sequence(tensors["unmatched"])) + len(sequence(tensors["misfit"])),
        "trigger_words": report["trigger_words"],
    }
