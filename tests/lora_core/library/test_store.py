"""What is kept, and that a fault of the disk is no fault of the library."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lora_core.library.scan import FileState
from lora_core.library.store import MAX_REPORT, KnownHashes, KnownLook, Store

FILE = FileState("/loras/ink.pt", 10, 20)
LOOK = KnownLook(FILE, "beside", '{"title":"Ink"}')
HASHES = KnownHashes(FILE, "a" * 64, None)


def test_it_gives_back_what_it_was_given(tmp_path: Path) -> None:
    store = Store(tmp_path / "user" / "library.sqlite")
    store.write([(LOOK, "{}")], [HASHES])
    store.close()
    again = Store(tmp_path / "user" / "library.sqlite")
    assert (again.looks(), again.hashes()) == ([LOOK], [HASHES])
    assert again.report(FILE, "beside") == "{}"
    assert again.report(FILE, "other") is again.report(FILE._replace(modified=21), "beside") is None
    again.write(gone=[FILE.path])
    assert (again.looks(), again.hashes()) == ([], [])
    again.close()


def test_a_report_of_great_length_is_not_kept(tmp_path: Path) -> None:
    store = Store(None)
    store.write([(LOOK, "x" * (MAX_REPORT + 1))])
    assert store.looks() == [LOOK]
    assert store.report(FILE, "beside") is None


def test_a_path_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    store = Store(None)
    odd = FILE._replace(path="/loras/\udcff.pt")
    store.write([(LOOK, None), (KnownLook(odd, "", "{}"), None)], [KnownHashes(odd, "b", None)], [odd.path])
    assert (store.looks(), store.hashes(), store.report(odd, "")) == ([LOOK], [], None)


def test_another_program_that_writes_is_waited_for_or_gone_without(tmp_path: Path) -> None:
    place = tmp_path / "library.sqlite"
    store = Store(place)
    store.write([(LOOK, None)])
    other = sqlite3.connect(place, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.write(hashes=[HASHES])  # refused, and not raised
    other.execute("ROLLBACK")
    other.close()
    assert (store.looks(), store.hashes()) == ([LOOK], [])
    store.write(hashes=[HASHES])
    assert store.hashes() == [HASHES]
    store.close()


def test_after_its_end_it_is_silent_and_the_file_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "library.sqlite")
    store.write([(LOOK, None)])
    store.close()
    store.write(hashes=[HASHES])
    assert store.looks() == []
    assert Store(tmp_path / "library.sqlite").looks() == [LOOK]
