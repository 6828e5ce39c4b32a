"""What is known of files from earlier, in SQLite: what they are, and their hashes. Everything in it can be made again.

A file goes by its path, size and time. Hashes outlive a change of this program; descriptions do not, for it may know
more kinds of files by now. A database that is broken, or of another schema, is made anew; one that cannot be written is
held in memory.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..adapters import ADAPTER_TYPES
from ..architectures import ARCHITECTURES
from ..formats import FORMATS
from ..version import VERSION
from .scan import FileState

# Raised when the tables change; a database of another number is thrown away.
SCHEMA = 1
# Raised when an entry has other fields.
FIELDS = 1
# A report with thousands of keys in it is made again when it is asked for.
MAX_REPORT = 200_000

_TABLES = """
CREATE TABLE program (tag TEXT NOT NULL);
CREATE TABLE looks (
  path TEXT PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL,
  beside TEXT NOT NULL, fields TEXT NOT NULL, report TEXT
) WITHOUT ROWID;
CREATE TABLE hashes (
  path TEXT PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, sha256 TEXT NOT NULL, body TEXT
) WITHOUT ROWID;
"""


class KnownLook(NamedTuple):
    """A description: of which file, what lay beside it, and the fields of its entry as JSON."""

    file: FileState
    beside: str
    fields: str


class KnownHashes(NamedTuple):
    """Hashes of a file: of all of it, and of what comes after the header; None where nothing does."""

    file: FileState
    sha256: str
    body: str | None


class Store:
    """One database. Any thread may call it; calls take turns.

    Args:
        file: made with its folder when it is not there; None is a database in memory.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._closed = False
        self._connection = self._open()

    def looks(self) -> list[KnownLook]:
        with self._lock:
            rows = self._read("SELECT path, size, modified, beside, fields FROM looks")
        return [KnownLook(FileState(*row[:3]), row[3], row[4]) for row in rows]

    def hashes(self) -> list[KnownHashes]:
        with self._lock:
            rows = self._read("SELECT path, size, modified, sha256, body FROM hashes")
        return [KnownHashes(FileState(*row[:3]), row[3], row[4]) for row in rows]

    def report(self, file: FileState, beside: str) -> str | None:
        """The report of a file as JSON, if it was kept and neither the file nor what lies beside it has changed."""
        query = "SELECT report FROM looks WHERE path = ? AND size = ? AND modified = ? AND beside = ?"
        if not _is_text(file.path):
            return None
        with self._lock:
            rows = self._read(query, (*file, beside))
        return rows[0][0] if rows else None

    def write(
        self,
        looks: Iterable[tuple[KnownLook, str | None]] = (),
        hashes: Iterable[KnownHashes] = (),
        gone: Iterable[str] = (),
    ) -> None:
        """Keep descriptions (each with its report, or None) and hashes, and forget paths; all of it or nothing."""
        with self._lock:
            try:
                self._write(list(looks), list(hashes), list(gone))
            except sqlite3.Error as error:
                # Where the disk is full, or another host writes: it is found out again at the next start.
                self._mend(error)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._connection.close()

    def _mend(self, error: sqlite3.Error) -> None:
        """Begin anew where the file is broken, which the base class alone says; its children are other faults."""
        if type(error) is sqlite3.DatabaseError and not self._closed:
            self._connection.close()
            self._connection = self._anew()

    def _write(self, looks: list[tuple[KnownLook, str | None]], hashes: list[KnownHashes], gone: list[str]) -> None:
        looks = [row for row in looks if _is_text(row[0].file.path)]
        hashes = [known for known in hashes if _is_text(known.file.path)]
        gone = [path for path in gone if _is_text(path)]
        with self._connection as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (*known.file, known.beside, known.fields, None if len(report or "") > MAX_REPORT else report)
                    for known, report in looks
                ],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?)",
                [(*known.file, known.sha256, known.body) for known in hashes],
            )
            # Last: what was found out of a file a moment before it was deleted goes with it.
            for table in ("looks", "hashes"):
                connection.executemany(f"DELETE FROM {table} WHERE path = ?", [(path,) for path in gone])

    def _read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:  # broken further in than the start shows
            self._mend(error)
            return []

    def _open(self) -> sqlite3.Connection:
        if self._file is None:
            return _made(":memory:")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            return _made(str(self._file))
        except sqlite3.OperationalError:  # no right to write, no room, or locked by another host
            return _made(":memory:")
        except sqlite3.DatabaseError:
            return self._anew()
        except OSError:
            return _made(":memory:")

    def _anew(self) -> sqlite3.Connection:
        """An empty database in the place of one that is of no use."""
        if self._file is None:
            return _made(":memory:")
        for end in ("", "-wal", "-shm"):
            with suppress(OSError):
                self._file.with_name(self._file.name + end).unlink(missing_ok=True)
        try:
            return _made(str(self._file))
        except sqlite3.Error:
            return _made(":memory:")


def _made(place: str) -> sqlite3.Connection:
    """Open a database and see that its tables are ours. ``DatabaseError`` where they are not."""
    connection = sqlite3.connect(place, timeout=2, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        with connection:
            if schema == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
            elif schema != SCHEMA:
                raise sqlite3.DatabaseError("another schema")
            if connection.execute("SELECT tag FROM program").fetchall() != [(_tag(),)]:
                connection.execute("DELETE FROM program")
                connection.execute("DELETE FROM looks")
                connection.execute("INSERT INTO program VALUES (?)", (_tag(),))
    except BaseException:
        connection.close()
        raise
    return connection


def _is_text(path: str) -> bool:
    """Not so where a name on disk holds bytes that are no UTF-8: SQLite takes none of these, so they are not kept."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _tag() -> str:
    """Changes with what this program can tell of a file."""
    names = [*FORMATS.names, *ADAPTER_TYPES.names, *ARCHITECTURES.names]
    return f"{VERSION} {FIELDS} {hashlib.blake2b(' '.join(names).encode(), digest_size=8).hexdigest()}"
