"""The list as it stands, in memory: a row a name, each with the version at which it last changed.

A version is a number that only grows, also over restarts, so that a page that was open meanwhile is not told half.
Nothing here touches the disk.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii

from .entry import BLANK, dumps
from .scan import FileState
from .store import KnownHashes, KnownLook


@dataclass(slots=True)
class Row:
    """One LoRA.

    Args:
        name: in the host's list.
        file: as it was last seen.
        version: of the list, when this row last changed.
        fields: JSON of the entry without name, size, time and hashes; None until it is described.
        looked_beside: what lay beside it when it was described.
        beside: what lies beside it now; None until that is known.
        sha256, autov3: "" until they are known.
        text: the entry as JSON, made when it is asked for.
    """

    name: str
    file: FileState
    version: int
    fields: str | None = None
    looked_beside: str | None = None
    beside: str | None = None
    sha256: str = ""
    autov3: str = ""
    text: str = ""


class Catalogue:
    """All rows. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}
        # Mostly one row each; a folder of the list may lie in another one.
        self._by_path: dict[str, list[Row]] = {}
        self._gone: dict[str, int] = {}
        self._looks: dict[str, KnownLook] = {}
        self._hashes: dict[str, KnownHashes] = {}
        self._to_look: OrderedDict[str, None] = OrderedDict()
        self._to_hash: OrderedDict[str, None] = OrderedDict()
        # Of microseconds: no list changes so often that a next start would fall among its versions. A page reads them
        # as whole numbers up to 2**53.
        self.first_version = self.version = int(time.time() * 1_000_000)

    def know(self, looks: Iterable[KnownLook], hashes: Iterable[KnownHashes]) -> None:
        """What is known from earlier, by path; for files that are seen from now on."""
        with self._lock:
            self._looks = {known.file.path: known for known in looks}
            self._hashes = {known.file.path: known for known in hashes}

    def see(self, files: Mapping[str, FileState]) -> list[str]:
        """The files that are there now, in the order of the list; returns the paths that are not there any more."""
        with self._lock:
            before = self._rows
            rows: dict[str, Row] = {}
            for name, file in files.items():
                row = before.get(name)
                rows[name] = row if row is not None and row.file == file else self._new(name, file)
            gone = before.keys() - rows.keys()
            if gone:
                self.version += 1
                self._gone |= dict.fromkeys(gone, self.version)
                for name in gone:
                    self._to_look.pop(name, None)
                    self._to_hash.pop(name, None)
            self._rows = rows
            self._by_path = {}
            for row in rows.values():
                self._by_path.setdefault(row.file.path, []).append(row)
            return [path for name in gone if (path := before[name].file.path) not in self._by_path]

    def _new(self, name: str, file: FileState) -> Row:
        self.version += 1
        self._gone.pop(name, None)
        row = Row(name, file, self.version)
        look, hashes = self._looks.get(file.path), self._hashes.get(file.path)
        if look is not None and look.file == file:
            row.fields, row.looked_beside = look.fields, look.beside
            self._to_look.pop(name, None)
        else:
            self._to_look[name] = None
        if hashes is not None and hashes.file == file:
            row.sha256, row.autov3 = hashes.sha256, (hashes.body or "")[:12]
            self._to_hash.pop(name, None)
        else:
            self._to_hash[name] = None
        return row

    def learn_look(self, name: str, known: KnownLook) -> bool:
        """A description; False where the file is another one by now."""
        with self._lock:
            row = self._rows.get(name)
            if row is None or row.file != known.file:
                return False
            self._to_look.pop(name, None)
            row.looked_beside = known.beside
            if row.fields != known.fields:
                row.fields = known.fields
                self._touch(row)
            return True

    def learn_hashes(self, name: str, known: KnownHashes) -> bool:
        """Hashes; False where the file is another one by now."""
        with self._lock:
            row = self._rows.get(name)
            if row is None or row.file != known.file:
                return False
            self._to_hash.pop(name, None)
            row.sha256, row.autov3 = known.sha256, (known.body or "")[:12]
            self._touch(row)
            return True

    def learn_beside(self, beside: Mapping[str, str]) -> None:
        """What lies beside each path now. Where it changed, the file is described again."""
        with self._lock:
            for path, found in beside.items():
                for row in self._by_path.get(path, ()):
                    row.beside = found
                    if row.fields is not None and row.looked_beside != found:
                        self._to_look[row.name] = None

    def skip_hash(self, name: str) -> None:
        """A file that cannot be read has none; it is tried again when the file changes."""
        with self._lock:
            if name in self._to_hash:
                del self._to_hash[name]
                self.version += 1  # no row changed, but there is less to do

    def _touch(self, row: Row) -> None:
        self.version += 1
        row.version, row.text = self.version, ""

    def row(self, name: str) -> Row | None:
        return self._rows.get(name)

    def paths(self) -> list[str]:
        with self._lock:
            return [row.file.path for row in self._rows.values()]

    def prefer(self, name: str) -> None:
        """This one first: somebody looks at it."""
        with self._lock:
            for waiting in (self._to_look, self._to_hash):
                if name in waiting:
                    waiting.move_to_end(name, last=False)

    def next_to_look(self) -> Row | None:
        with self._lock:
            return self._rows[next(iter(self._to_look))] if self._to_look else None

    def waiting_to_look(self) -> int:
        return len(self._to_look)

    def next_to_hash(self) -> Row | None:
        with self._lock:
            return self._rows[next(iter(self._to_hash))] if self._to_hash else None

    def state(self) -> dict[str, object]:
        """``{"files", "described", "hashed", "busy"}``."""
        with self._lock:
            return self._state()

    def _state(self) -> dict[str, object]:
        rows = self._rows.values()
        return {
            "files": len(rows),
            "described": sum(row.fields is not None for row in rows),
            "hashed": sum(bool(row.sha256) for row in rows),
            "busy": bool(self._to_look or self._to_hash),
        }

    def answer(self, since: int = 0) -> str:
        """JSON of ``GET /loom/loras``: what changed after a version, or all where that version is not of this list."""
        with self._lock:
            full = not self.first_version <= since <= self.version
            rows = [row for row in self._rows.values() if full or row.version > since]
            gone = [] if full else [name for name, version in self._gone.items() if version > since]
            entries = ",".join([row.text or _rendered(row) for row in rows])
            head = dumps({"version": self.version, "full": full, "state": self._state(), "gone": gone})
        return f'{head[:-1]},"loras":[{entries}]}}'


def _rendered(row: Row) -> str:
    file = row.file
    hashes = f'"autov3":{_or_null(row.autov3)},"sha256":{_or_null(row.sha256)}'
    row.text = (
        f'{{"name":{encode_basestring_ascii(row.name)},"size":{file.size},"modified":{file.modified / 1e9:.3f},'
        f"{(row.fields or BLANK)[1:-1]},{hashes}}}"
    )
    return row.text


def _or_null(digest: str) -> str:
    return f'"{digest}"' if digest else "null"
