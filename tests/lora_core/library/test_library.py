"""A library over files that come, change and go while it runs, and over starts that find what earlier ones left."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_core.inspect import inspect_file
from lora_core.io import file_hashes
from lora_core.library import entry
from lora_core.library import library as module

from .conftest import TENSORS, Shelf, entries, settle, wait_for

ROOT = Path(__file__).resolve().parents[3]


def test_nothing_runs_and_nothing_is_opened_before_it_is_asked(shelf: Shelf) -> None:
    shelf.library()
    assert not shelf.file.exists()


def test_the_first_answer_has_every_name_and_no_file_was_opened(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.put("a.safetensors")
    path = shelf.put("sub/b.safetensors")
    library = shelf.library()
    monkeypatch.setattr(library._worker, "wake", lambda: None)
    found = json.loads(library.answer())
    assert [entry["name"] for entry in found["loras"]] == shelf.names()
    assert found["state"] == {"files": 2, "described": 0, "hashed": 0, "busy": True}
    assert found["full"] is True
    assert found["gone"] == []
    entry = found["loras"][1]
    assert (entry["state"], entry["size"]) == ("new", path.stat().st_size)
    assert entry["modified"] == pytest.approx(path.stat().st_mtime, abs=0.001)


def test_entries_say_what_inspect_says(shelf: Shelf) -> None:
    path = shelf.put("ink.safetensors", "Ink", **{"modelspec.trigger_phrase": "ink style, bold"})
    path.with_suffix(".json").write_text(json.dumps({"preferred weight": 0.7, "activation text": "lines"}))
    path.with_suffix(".png").write_bytes(b"")
    entry = settle(shelf.library())["ink.safetensors"]
    report, hashes = inspect_file(path), file_hashes(path)
    assert entry == {
        "name": "ink.safetensors", "size": path.stat().st_size, "modified": entry["modified"], "title": "Ink",
        "architecture": report["architecture"], "base": "Loom Demo", "format": report["format"], "types": ["lora"],
        "rank": "4", "used": len(TENSORS), "total": len(TENSORS), "problems": 0,
        "trigger_words": ["ink style", "bold", "lines"], "strength": 0.7, "preview": True, "state": "described",
        "error": None, "autov3": hashes.autov3, "sha256": hashes.sha256,
    }  # fmt: skip


def test_a_hash_in_the_header_is_not_believed(shelf: Shelf) -> None:
    path = shelf.put("liar.safetensors", sshs_model_hash="a" * 64)
    entry = settle(shelf.library())["liar.safetensors"]
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry["autov3"] == file_hashes(path).autov3 != "a" * 12


def test_what_comes_changes_and_goes_is_told_once(shelf: Shelf) -> None:
    shelf.put("stays.safetensors")
    gone, changed = shelf.put("goes.safetensors"), shelf.put("changes.safetensors", "Old")
    library = shelf.library()
    settle(library)
    version = library.version
    assert entries(library, version) == {}
    gone.unlink()
    shelf.put("comes.safetensors")
    size = changed.stat().st_size
    shelf.put("changes.safetensors", "New")  # as long as before
    os.utime(changed, ns=(1, changed.stat().st_mtime_ns + 1))
    assert changed.stat().st_size == size
    settle(library)
    told = json.loads(library.answer(version))
    assert told["gone"] == ["goes.safetensors"]
    assert {entry["name"]: entry["title"] for entry in told["loras"]} == {
        "comes.safetensors": "comes", "changes.safetensors": "New",
    }  # fmt: skip
    assert told["full"] is False
    assert json.loads(library.answer(told["version"]))["loras"] == []
    shelf.put("goes.safetensors")
    settle(library)
    told = json.loads(library.answer(told["version"]))
    assert (told["gone"], list(entries(library, version))) == (
        [],
        ["changes.safetensors", "comes.safetensors", "goes.safetensors"],
    )


@pytest.mark.parametrize("since", [1, 10**17, -5])
def test_a_version_of_another_run_is_answered_with_all(shelf: Shelf, since: int) -> None:
    shelf.put("a.safetensors")
    told = json.loads(shelf.library().answer(since))
    assert told["full"] is True
    assert len(told["loras"]) == 1


def test_versions_grow_over_starts(shelf: Shelf) -> None:
    shelf.put("a.safetensors")
    first = shelf.library()
    settle(first)
    first.close()
    time.sleep(0.05)
    second = shelf.library()
    second.refresh()
    assert second.version > first.version


def test_a_start_right_after_many_changes_has_versions_of_its_own(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        shelf.put(f"{number}.safetensors")
    told: list[int] = []
    for now in (1000.0, 1000.001):
        monkeypatch.setattr("lora_core.library.catalogue.time.time", lambda now=now: now)
        library = shelf.library()
        monkeypatch.setattr(library._worker, "wake", lambda: None)
        answer = json.loads(library.answer(told[-1] if told else 0))
        assert answer["full"] is True
        told.append(answer["version"])


def test_the_collector_of_garbage_waits_while_files_are_listed_and_described(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def watched(plain: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: seen.append(gc.isenabled()) or plain(*given)

    monkeypatch.setattr(module, "find_files", watched(module.find_files))
    monkeypatch.setattr(entry, "look_at", watched(entry.look_at))
    path = shelf.put("a.safetensors")
    library = shelf.library()
    monkeypatch.setattr(library._worker, "wake", lambda: None)
    library.refresh()
    library.describe("a.safetensors", str(path))
    assert seen == [False, False]
    assert gc.isenabled()


def test_a_folder_inside_another_has_its_files_under_two_names(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BESIDE_EVERY", 0.0)
    shelf.folders.append(shelf.folders[0] / "sub")
    path = shelf.put("ink.safetensors", folder=1)
    library = shelf.library()
    assert settle(library).keys() == {"ink.safetensors", "sub/ink.safetensors"}
    path.with_suffix(".txt").write_text("ink style")
    library.refresh(force=True)
    wait_for(lambda: all(entry["trigger_words"] for entry in entries(library).values()))
    library.close()
    second = shelf.library()
    monkeypatch.setattr(second._worker, "wake", lambda: None)
    second.refresh()
    assert second.state() == {"files": 2, "described": 2, "hashed": 2, "busy": False}


def test_of_two_folders_the_first_one_wins_and_then_the_other(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    shelf.folders.append(tmp_path / "more")
    first = shelf.put("twin.safetensors", "First")
    shelf.put("twin.safetensors", "Second", folder=1)
    shelf.put("own.safetensors", "Own", folder=1)
    library = shelf.library()
    found = settle(library)
    assert {name: entry["title"] for name, entry in found.items()} == {
        "own.safetensors": "Own", "twin.safetensors": "First",
    }  # fmt: skip
    version = library.version
    first.unlink()
    settle(library)
    assert entries(library, version)["twin.safetensors"]["title"] == "Second"
    assert json.loads(library.answer(version))["gone"] == []


def test_a_sidecar_that_is_edited_is_seen(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BESIDE_EVERY", 0.0)
    path = shelf.put("ink.safetensors")
    library = shelf.library()
    assert settle(library)["ink.safetensors"]["trigger_words"] == []
    path.with_suffix(".txt").write_text("ink style")
    library.refresh(force=True)
    wait_for(lambda: entries(library)["ink.safetensors"]["trigger_words"] == ["ink style"])
    path.with_suffix(".txt").unlink()
    path.with_suffix(".webp").write_bytes(b"")
    library.refresh(force=True)
    wait_for(lambda: entries(library)["ink.safetensors"]["preview"])
    assert entries(library)["ink.safetensors"]["trigger_words"] == []


def test_a_second_start_opens_no_file(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.put("a.safetensors")
    (shelf.folders[0] / "bad.safetensors").write_bytes(b"bad")
    first = shelf.library()
    before = settle(first)
    first.close()
    monkeypatch.setattr(module, "describe_file", None)
    monkeypatch.setattr(module, "read_hashes", None)
    second = shelf.library()
    assert entries(second) == before
    assert second.state() == {"files": 2, "described": 2, "hashed": 2, "busy": False}
    said = inspect_file(shelf.folders[0] / "a.safetensors", hashes=False)
    del said["metadata"]
    assert second.report("a.safetensors") == said


def test_a_disk_that_comes_back_is_known_and_a_deleted_file_is_not(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("disk/a.safetensors")
    deleted = shelf.put("b.safetensors")
    library = shelf.library()
    settle(library)
    os.rename(shelf.folders[0] / "disk", tmp_path / "away")
    deleted.unlink()
    settle(library)
    library.close()
    with sqlite3.connect(shelf.file) as database:
        kept = {Path(path).name for (path,) in database.execute("SELECT path FROM hashes")}
    assert kept == {"a.safetensors"}


@pytest.mark.parametrize("damage", ["garbage", "page", "schema", "tables", "empty", "folder"])
def test_a_database_of_no_use_is_made_anew(shelf: Shelf, damage: str) -> None:
    for number in range(15):
        shelf.put(f"{number}.safetensors")
    first = shelf.library()
    before = settle(first)
    first.close()
    if damage == "garbage":
        shelf.file.write_bytes(b"garbage" * 1000)
    elif damage == "page":
        raw = bytearray(shelf.file.read_bytes())
        raw[4096:] = os.urandom(len(raw) - 4096)
        shelf.file.write_bytes(raw)
    elif damage == "schema":
        with sqlite3.connect(shelf.file) as database:
            database.execute("PRAGMA user_version = 999")
    elif damage == "tables":
        with sqlite3.connect(shelf.file) as database:
            database.execute("DROP TABLE looks")
    elif damage == "empty":
        shelf.file.write_bytes(b"")
    else:
        shelf.file.unlink()
        shelf.file.mkdir()
    second = shelf.library()
    assert settle(second) == before
    second.close()
    if damage != "folder":
        third = shelf.library(hashing=False)
        third.refresh()
        assert third.state()["described"] in (15, 0)  # at the latest the third start finds it whole
        assert settle(third).keys() == before.keys()


def test_another_program_version_keeps_hashes_alone(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.put("a.safetensors")
    first = shelf.library()
    settle(first)
    first.close()
    monkeypatch.setattr("lora_core.library.store.VERSION", "99")
    second = shelf.library()
    monkeypatch.setattr(second._worker, "wake", lambda: None)
    second.refresh()
    assert second.state() == {"files": 1, "described": 0, "hashed": 1, "busy": True}


def test_a_folder_that_cannot_be_written_costs_nothing_but_memory(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("a.safetensors")
    (tmp_path / "file").write_text("")
    library = shelf.library(file=tmp_path / "file" / "library.sqlite")
    assert settle(library)["a.safetensors"]["state"] == "described"


def test_events_come_at_most_twice_a_second_and_the_last_one_has_it_all(shelf: Shelf) -> None:
    for number in range(40):
        shelf.put(f"{number}.safetensors")
    library = shelf.library()
    start = time.monotonic()
    settle(library)
    wait_for(lambda: shelf.events and shelf.events[-1][0] == library.version)
    assert len(shelf.events) <= 2 * (time.monotonic() - start) + 2
    assert shelf.events[-1][1] == {"files": 40, "described": 40, "hashed": 40, "busy": False}


def test_a_busy_program_is_left_alone(shelf: Shelf) -> None:
    shelf.put("a.safetensors")
    shelf.busy = True
    library = shelf.library()
    library.refresh()
    wait_for(lambda: library.state()["described"])
    time.sleep(0.2)
    assert library.state()["hashed"] == 0
    path = str(shelf.folders[0] / "a.safetensors")
    assert library.hash("a.safetensors", path).result(30) == file_hashes(path)  # asked for, it is done
    shelf.put("b.safetensors")
    library.refresh(force=True)
    wait_for(lambda: library.state()["described"] == 2)
    shelf.busy = False
    wait_for(lambda: library.state()["hashed"] == 2)


def test_what_somebody_looks_at_goes_first(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        shelf.put(f"{number}.safetensors")
    library = shelf.library()
    with monkeypatch.context() as patch:
        patch.setattr(library._worker, "wake", lambda: None)
        library.refresh()
        library.prefer("7.safetensors")
    row = library._catalogue.next_to_look()
    assert row is not None
    assert row.name == "7.safetensors"


def test_files_that_are_none(shelf: Shelf, tmp_path: Path) -> None:
    folder = shelf.folders[0]
    (folder / "dead.safetensors").symlink_to(tmp_path / "nowhere")
    (folder / "loop.safetensors").symlink_to(folder / "loop.safetensors")
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "deep.safetensors").write_bytes((40_000).to_bytes(8, "little") + b"[" * 40_000)
    shelf.put("<img src=x onerror=alert(1)>.safetensors")
    shelf.put("é" * 100 + ".safetensors")
    found = settle(shelf.library())
    states = {name: entry["state"] for name, entry in found.items()}
    assert [name for name, state in states.items() if state == "failed"] == [
        "dead.safetensors", "deep.safetensors", "empty.safetensors", "loop.safetensors",
    ]  # fmt: skip
    assert str(tmp_path) not in json.dumps(found)
    assert all(entry["error"] for entry in found.values() if entry["state"] == "failed")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_a_name_that_is_no_text(shelf: Shelf) -> None:
    name = os.fsdecode(b"\xff\xfe.safetensors")
    shelf.put("a.safetensors").rename(shelf.folders[0] / name)
    library = shelf.library()
    assert settle(library)[name]["state"] == "described"
    library.close()
    assert entries(shelf.library()).keys() == {name}


def test_a_fault_of_ours_stops_neither_the_list_nor_the_worker(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: Path) -> None:
        raise RuntimeError("oh")

    shelf.put("a.safetensors")
    shelf.put("b.safetensors")
    monkeypatch.setattr("lora_core.library.entry.look_at", broken)
    found = settle(shelf.library())
    assert [entry["state"] for entry in found.values()] == ["failed", "failed"]
    assert found["a.safetensors"]["error"] == "a.safetensors: cannot be read (RuntimeError: oh)."


KILLED = """
import sys, json
sys.path[:0] = [sys.argv[1]]
import os, pathlib
from lora_core.library import Library, Listing
folder = pathlib.Path(sys.argv[2])
names = sorted(path.name for path in folder.iterdir())
library = Library(lambda: Listing(names, [str(folder)]), pathlib.Path(sys.argv[3]))
library._worker._every = 0.0  # write after each file
library._apart._closed = True  # and describe here: a helper would still be starting
library.refresh()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_program_that_is_killed_leaves_a_database_that_is_whole(shelf: Shelf) -> None:
    """Killed in the middle of its writing, at five moments; each start goes on where the one before was."""
    for number in range(60):
        shelf.put(f"{number:02}.safetensors")
    for moment in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(ROOT), str(shelf.folders[0]), str(shelf.file)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.15 + 0.06 * moment)
        process.kill()
        process.communicate()
        with sqlite3.connect(shelf.file) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            for fields, report in database.execute("SELECT fields, report FROM looks"):
                assert json.loads(fields)["state"] == "described"
                assert json.loads(report)["architecture"] == "loom_demo"
    assert len(settle(shelf.library())) == 60


def test_it_ends_at_once_and_writes_what_it_knows(shelf: Shelf) -> None:
    for number in range(20):
        shelf.put(f"{number}.safetensors")
    library = shelf.library()
    library.refresh()
    wait_for(lambda: library.state()["described"])
    library.close()
    described = library.state()["described"]
    with sqlite3.connect(shelf.file) as database:
        assert database.execute("SELECT count(*) FROM looks").fetchone()[0] >= described - 1
    library.refresh(force=True)  # a late request does no harm
