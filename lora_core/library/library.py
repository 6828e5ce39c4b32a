"""All LoRAs of a program: a list that is there at once, and what is known of each, which comes as it is found out."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, cast

from ..collection import no_collection
from ..io.hashes import FileHashes, read_hashes
from .apart import Apart
from .catalogue import Catalogue, Row
from .entry import Described, Json, describe_file
from .scan import FileState, besides, find_files
from .store import KnownHashes, KnownLook, Store
from .worker import Stopped, Worker

# Seconds in which the disk is not looked at again.
_SCAN_EVERY = 1.0
_BESIDE_EVERY = 3.0
# So many files are described by a helper; for fewer its start would take longer.
_MANY = 20


class Listing(NamedTuple):
    """The names of all LoRAs as the program knows them, and the folders that they are in, the first one first."""

    names: Sequence[str]
    folders: Sequence[str]


class Library:
    """See the package. Any thread may call it; nothing is opened and no thread runs before the first ``refresh``.

    Args:
        listing: what there is; called at most once a second.
        file: of the database; None keeps it in memory.
        notify: called with (version, state) when the list changed, at most twice a second, in the worker's thread.
        idle: whether the program has nothing else to do; where it has, nothing is hashed unasked.
        hashing: whether files are hashed unasked at all.
    """

    def __init__(
        self,
        listing: Callable[[], Listing],
        file: Path | None = None,
        notify: Callable[[int, Json], None] = lambda version, state: None,
        idle: Callable[[], bool] = lambda: True,
        *,
        hashing: bool = True,
    ) -> None:
        self._listing, self._file, self._notify, self._idle, self._hashing = listing, file, notify, idle, hashing
        self._catalogue = Catalogue()
        self._scanning = threading.Lock()
        self._store: Store | None = None
        self._scanned = self._looked_beside = float("-inf")
        self._asked: deque[tuple[str, FileState, Future[FileHashes]]] = deque()
        self._looks: dict[str, tuple[KnownLook, str | None]] = {}
        self._hashes: dict[str, KnownHashes] = {}
        self._gone: list[str] = []
        self._told = 0
        self._apart = Apart()
        tasks = (self._hash_asked, self._look_beside, self._look, self._hash)
        self._worker = Worker(tasks, self._flush, idle, self._waiting)

    def refresh(self, *, force: bool = False) -> None:
        """See what changed on disk, unless that was done a moment ago."""
        with self._scanning:
            if not force and time.monotonic() - self._scanned < _SCAN_EVERY:
                return
            with no_collection():
                if self._store is None:
                    self._store = Store(self._file)
                    self._catalogue.know(self._store.looks(), self._store.hashes())
                names, folders = self._listing()
                self._gone += self._catalogue.see(find_files(names, folders))
            self._scanned = time.monotonic()
        self._worker.wake()

    def answer(self, since: int = 0) -> str:
        """JSON of all entries, or of those that changed after a version: ``GET /loom/loras``."""
        self.refresh()
        return self._catalogue.answer(since)

    def state(self) -> Json:
        return self._catalogue.state()

    @property
    def version(self) -> int:
        return self._catalogue.version

    def row(self, name: str) -> Row | None:
        """What is known of a name of the list."""
        self.refresh()
        return self._catalogue.row(name)

    def prefer(self, name: str) -> None:
        """Describe and hash this one before all others."""
        self._catalogue.prefer(name)
        self._worker.wake()

    def describe(self, name: str, path: str) -> Described:
        """Look at one file now; the list learns from it."""
        beside, seen = _beside(path), _seen(path)
        described = describe_file(path)
        self._learn(name, described, KnownLook(seen, beside, described.fields))
        self._worker.wake()
        return described

    def report(self, name: str) -> Json | None:
        """The report of a file that was described before and is as it was then, sidecars included."""
        row = self._catalogue.row(name)
        if row is None or self._store is None or row.looked_beside is None:
            return None
        self._catalogue.learn_beside({row.file.path: _beside(row.file.path)})
        if row.looked_beside != row.beside or _seen(row.file.path) != row.file:
            return None
        kept = self._store.report(row.file, row.looked_beside)
        return None if kept is None else cast("Json", json.loads(kept))

    def hash(self, name: str, path: str) -> Future[FileHashes]:
        """Hash a file before everything else. The future fails with ``OSError`` where it cannot be read."""
        future: Future[FileHashes] = Future()
        self._asked.append((name, _seen(path), future))
        self._worker.wake()
        return future

    def close(self) -> None:
        """Stop the worker and close the database; for the end of the program."""
        self._apart.close()
        self._worker.close()
        for _, _, future in self._asked:
            future.cancel()
        if self._store is not None:
            self._store.close()

    # What the worker does, a step a call

    def _hash_asked(self) -> bool:
        if not self._asked:
            return False
        name, file, future = self._asked.popleft()
        if future.set_running_or_notify_cancel():
            try:
                # Nobody waits for the rest of the library; whoever asked waits for this.
                future.set_result(self._hashed(name, file, self._stop_between))
            except BaseException as error:
                future.set_exception(error)
                if isinstance(error, Stopped):
                    raise
        return True

    def _look_beside(self) -> bool:
        if self._looked_beside >= self._scanned or time.monotonic() - self._looked_beside < _BESIDE_EVERY:
            return False
        self._looked_beside = time.monotonic()
        for folder in besides(self._catalogue.paths()):
            self._catalogue.learn_beside(folder)
            self._worker.breathe(0.0)
        return True

    def _look(self) -> bool:
        row = self._catalogue.next_to_look()
        if row is None:
            self._apart.rest()
            return False
        beside = row.beside
        if beside is None:
            beside = _beside(row.file.path)
        if self._apart.usable and (self._apart.running or self._catalogue.waiting_to_look() >= _MANY):
            described = self._apart.describe(row.file.path)
        else:
            described = describe_file(row.file.path)
        known = KnownLook(row.file, beside, described.fields)
        if not self._learn(row.name, described, known):
            self.refresh(force=True)  # the file changed meanwhile
        return True

    def _hash(self) -> bool:
        row = self._catalogue.next_to_hash() if self._hashing and self._idle() else None
        if row is None:
            return False
        clock = [time.perf_counter()]

        def check() -> None:
            self._hash_asked()
            self._worker.breathe(time.perf_counter() - clock[0])
            clock[0] = time.perf_counter()

        try:
            self._hashed(row.name, row.file, check)
        except OSError:
            self._catalogue.skip_hash(row.name)
        return True

    def _waiting(self) -> bool:
        return self._looked_beside < self._scanned or (self._hashing and self._catalogue.next_to_hash() is not None)

    def _flush(self) -> None:
        looks, self._looks = self._looks, {}
        hashes, self._hashes = self._hashes, {}
        gone, self._gone = self._gone, []
        if self._store is not None and (looks or hashes or gone):
            # A folder that is away for now, an unplugged disk say, keeps what is known of it.
            deleted = [path for path in gone if os.path.isdir(os.path.dirname(path)) and not os.path.exists(path)]
            self._store.write(looks.values(), hashes.values(), deleted)
        if self._catalogue.version != self._told:
            self._told = self._catalogue.version
            self._notify(self._told, self._catalogue.state())

    # Parts of the above

    def _learn(self, name: str, described: Described, known: KnownLook) -> bool:
        if not self._catalogue.learn_look(name, known):
            return False
        self._catalogue.learn_beside({known.file.path: known.beside})
        if described.lasting:
            self._looks[known.file.path] = (known, described.report)
        return True

    def _hashed(self, name: str, file: FileState, check: Callable[[], None]) -> FileHashes:
        found = read_hashes(file.path, check)
        known = KnownHashes(file, found.sha256, found.body)
        # A file that was written meanwhile has none of its hashes.
        if _seen(file.path) == file and self._catalogue.learn_hashes(name, known):
            self._hashes[file.path] = known
        else:
            self._catalogue.skip_hash(name)
        return found

    def _stop_between(self) -> None:
        self._worker.breathe(0.0)


def _seen(path: str) -> FileState:
    try:
        status = os.stat(path)
    except OSError:
        return FileState(path, 0, 0)
    return FileState(path, status.st_size, status.st_mtime_ns)


def _beside(path: str) -> str:
    return next(iter(besides([path])))[path]
