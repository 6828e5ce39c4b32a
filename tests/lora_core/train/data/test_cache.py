"""Entries by content: never stale, never half written, made again when damaged."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lora_core.io import TensorFile
from lora_core.train.data.cache import Cache, key_of

FACTS = {"picture": "0123", "vae": "abcd"}


def tensors(seed: int = 0, size: int = 64) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {"mean": torch.randn(4, size, size, generator=random), "std": torch.rand(4, size, size, generator=random)}


def entry(folder: Path) -> Path:
    (path,) = folder.rglob("*.safetensors")
    return path


def same(one: dict[str, torch.Tensor] | None, other: dict[str, torch.Tensor]) -> bool:
    return one is not None and one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, warnings: list[str]) -> Cache:
    return Cache(tmp_path, 1 << 20, warnings.append)


def again(tmp_path: Path, warnings: list[str]) -> Cache:
    """As another run finds it."""
    return Cache(tmp_path, 1 << 20, warnings.append)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_an_entry_comes_back_to_the_last_bit(cache: Cache, tmp_path: Path, warnings: list[str], dtype: torch.dtype):
    written = {"text": (torch.randn(77, 8) * 100).to(dtype), "empty": torch.zeros(0, 3)}
    cache.put(FACTS, written)

    assert same(cache.get(FACTS), written)
    assert same(again(tmp_path, warnings).get(FACTS), written)
    assert cache.get({**FACTS, "vae": "other"}) is None
    assert warnings == []


def test_an_entry_says_what_it_is_of(cache: Cache, tmp_path: Path):
    cache.put(FACTS, tensors())

    with TensorFile(entry(tmp_path)) as file:
        assert file.metadata["facts"] == '{"picture": "0123", "vae": "abcd"}'


@pytest.mark.parametrize("damage", ["cut off", "empty", "one bit", "another entry", "no safetensors"])
def test_a_damaged_entry_is_reported_and_made_again(cache: Cache, tmp_path: Path, warnings: list[str], damage: str):
    cache.put(FACTS, tensors())
    path = entry(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "one bit":
        data[-100] ^= 1
    elif damage == "another entry":
        other = Cache(tmp_path / "other", 1 << 20, warnings.append)
        other.put({"picture": "4567"}, tensors(1))
        data = bytearray(entry(tmp_path / "other").read_bytes())
    path.write_bytes({"cut off": data[:-100], "empty": b"", "no safetensors": b"x" * 100}.get(damage, bytes(data)))

    cache = again(tmp_path, warnings)
    assert cache.get(FACTS) is None
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{path.name}: a damaged entry of the cache is made again (")

    cache.put(FACTS, tensors())
    assert same(again(tmp_path, warnings).get(FACTS), tensors())
    assert len(warnings) == 1


def test_a_folder_that_cannot_be_written_costs_the_files_and_not_the_run(tmp_path: Path, warnings: list[str]):
    (tmp_path / "taken").write_bytes(b"a file where the folder should be")
    cache = Cache(tmp_path / "taken", 1 << 20, warnings.append)

    cache.put(FACTS, tensors())
    cache.put({"picture": "4567"}, tensors(1))

    assert same(cache.get(FACTS), tensors())
    assert same(cache.get({"picture": "4567"}), tensors(1))
    assert len(warnings) == 1
    assert "cannot be written" in warnings[0]


def test_memory_keeps_what_was_used_last_within_its_bound(tmp_path: Path):
    one = tensors()
    size = sum(tensor.nbytes for tensor in one.values())
    cache = Cache(None, 2 * size, print)
    a, b, c = ({"picture": name} for name in "abc")

    cache.put(a, tensors(1))
    cache.put(b, tensors(2))
    cache.put(b, tensors(2))
    assert same(cache.get(a), tensors(1))
    cache.put(c, tensors(3))

    assert cache.get(b) is None
    assert same(cache.get(a), tensors(1))
    assert same(cache.get(c), tensors(3))


def _write(folder: Path, number: int) -> None:
    cache = Cache(folder, 0, print)
    for _ in range(30):
        for seed in range(4):
            cache.put({"picture": str(seed)}, tensors(seed))


def test_several_writers_and_a_reader_at_once(tmp_path: Path):
    """The reader sees no entry or a whole one."""
    # Not fork: torch's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path, number)) for number in range(2)]
    for writer in writers:
        writer.start()
    warnings: list[str] = []
    seen = 0
    while any(writer.is_alive() for writer in writers):
        for seed in range(4):
            found = Cache(tmp_path, 0, warnings.append).get({"picture": str(seed)})
            assert found is None or same(found, tensors(seed))
            seen += found is not None
    for writer in writers:
        writer.join()

    assert [writer.exitcode for writer in writers] == [0, 0]
    assert warnings == []
    assert seen > 0
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4
    assert [path for path in tmp_path.rglob(".*") if path.is_file()] == []


KILLED = """
import os, signal, sys
import torch
from lora_core.io import atomic
from lora_core.train.data.cache import Cache

class Dying(atomic.FileIO):
    def write(self, data):
        super().write(bytes(data)[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

atomic.FileIO = Dying
Cache(__import__("pathlib").Path(sys.argv[1]), 0, print).put({"picture": "0123"}, {"mean": torch.ones(1000)})
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_writer_that_is_killed_leaves_no_entry(tmp_path: Path, repository: Path, warnings: list[str]):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=repository, check=False)

    assert done.returncode == -signal.SIGKILL
    assert again(tmp_path, warnings).get({"picture": "0123"}) is None
    assert warnings == []
    cache = again(tmp_path, warnings)
    cache.put({"picture": "0123"}, {"mean": torch.ones(1000)})
    assert same(again(tmp_path, warnings).get({"picture": "0123"}), {"mean": torch.ones(1000)})


def test_keys_do_not_depend_on_the_order_of_facts():
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"}) != key_of({"a": "2", "b": "1"})
