"""Streaming writing: readable by the safetensors library, in one pass, all or nothing."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lora_core.errors import CorruptFileError, DiskFullError, OutputExistsError
from lora_core.io import Entry, TensorDict, TensorFile, copying, stream_safetensors
from lora_core.io.dtypes import NAMES, TORCH_DTYPES


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def computed(name: str, tensor: torch.Tensor) -> Entry:
    return Entry(name, NAMES[tensor.dtype], tuple(tensor.shape), lambda: tensor)


def taken(file: TensorFile, *names: str) -> list[Entry]:
    return [Entry(name, file[name].dtype, file[name].shape, file[name]) for name in names or file]


def random_bits(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    count = torch.Size(shape).numel() * dtype.itemsize
    return torch.randint(0, 256, (count,), generator=generator, dtype=torch.uint8).view(dtype).reshape(shape)


@pytest.fixture
def source(tmp_path: Path) -> TensorFile:
    tensors = {f"t{index}": torch.full((index, 3), float(index)) for index in range(6)}  # t0 is empty
    save_file(tensors, tmp_path / "source.safetensors", {"from": "here"})
    return TensorFile(tmp_path / "source.safetensors")


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


tensors = st.dictionaries(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda name: name != "__metadata__"),
    st.builds(
        random_bits,
        st.sampled_from(list(TORCH_DTYPES.values())),
        st.lists(st.integers(0, 5), max_size=4).map(tuple),
        st.integers(0, 1000),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=tensors, metadata=st.dictionaries(st.text(), st.text(), max_size=3))
def test_the_safetensors_library_reads_what_is_written(
    tmp_path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    """Every dtype, any names and shapes, empty ones too; then once more, taken over from the file."""
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    # Wide numbers first: that library does not read a tensor that is not aligned to its dtype.
    entries = sorted(
        (computed(*item) for item in tensors.items()), key=lambda entry: -TORCH_DTYPES[entry.dtype].itemsize
    )
    stream_safetensors(first, entries, metadata, overwrite=True)
    stream_safetensors(second, taken(TensorFile(first)), metadata, overwrite=True)

    assert second.read_bytes() == first.read_bytes()
    with safe_open(first, "pt") as file:
        assert (file.metadata() or {}) == metadata
    loaded = load_file(first)
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].shape == tensor.shape
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(bits(loaded[name]), bits(tensor))


def test_data_starts_at_a_multiple_of_eight(tmp_path: Path) -> None:
    for length in range(1, 10):
        path = tmp_path / f"{length}.safetensors"
        stream_safetensors(path, [computed("n" * length, torch.ones(1))])
        assert TensorFile(path).data_start % 8 == 0


def test_order_is_kept_and_sources_mix(tmp_path: Path, source: TensorFile) -> None:
    """Ranges of a file, tensors in memory and computed ones in any order."""
    memory = TensorDict({"m": torch.tensor([7, 8])})
    entries = [
        *taken(source, "t5"),
        computed("new", torch.ones(2, 2)),
        *taken(source, "t1", "t2", "t3"),
        Entry("m", "I64", (2,), memory["m"]),
        *taken(source, "t0"),
    ]
    stream_safetensors(tmp_path / "out.safetensors", entries)
    assert list(TensorFile(tmp_path / "out.safetensors")) == ["t5", "new", "t1", "t2", "t3", "m", "t0"]
    loaded = load_file(tmp_path / "out.safetensors")
    assert loaded["t3"].tolist() == [[3.0] * 3] * 3
    assert loaded["m"].tolist() == [7, 8]


def test_a_view_is_written_row_by_row(tmp_path: Path) -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    stream_safetensors(tmp_path / "out.safetensors", [computed("w", matrix.T)])
    assert load_file(tmp_path / "out.safetensors")["w"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("copiers", [copying._COPIERS[at:] for at in range(len(copying._COPIERS))], ids=len)
def test_each_way_of_copying_gives_the_same_bytes(
    tmp_path: Path, source: TensorFile, copiers: tuple[copying.Copier, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """copy_file_range, sendfile, reading and writing; in small steps."""
    monkeypatch.setattr(copying, "_COPIERS", copiers)
    monkeypatch.setattr(copying, "CHUNK", 5)
    stream_safetensors(tmp_path / "out.safetensors", taken(source), source.metadata)
    assert (tmp_path / "out.safetensors").read_bytes()[-180:] == source.path.read_bytes()[-180:]
    assert all(
        torch.equal(tensor, source[name].load()) for name, tensor in load_file(tmp_path / "out.safetensors").items()
    )


def test_a_way_of_copying_that_does_not_work_here_gives_way_to_the_next(
    tmp_path: Path, source: TensorFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def elsewhere(*_: object) -> int:
        raise OSError(errno.EXDEV, "crosses file systems")

    monkeypatch.setattr(copying, "_COPIERS", (elsewhere, copying._read_write))
    stream_safetensors(tmp_path / "out.safetensors", taken(source))
    assert load_file(tmp_path / "out.safetensors")["t2"].tolist() == [[2.0] * 3] * 2


def test_progress_counts_every_byte(tmp_path: Path, source: TensorFile) -> None:
    seen: list[tuple[int, int]] = []
    stream_safetensors(
        tmp_path / "out.safetensors",
        [*taken(source), computed("new", torch.ones(100))],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (os.path.getsize(tmp_path / "out.safetensors"),) * 2


class Cancelled(BaseException):
    """As the host's own cancel, no Exception."""


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, Cancelled])
@pytest.mark.parametrize("old", [None, b"old"])
def test_what_stops_the_writing_leaves_nothing(
    tmp_path: Path, source: TensorFile, error: type[BaseException], old: bytes | None
) -> None:
    target = tmp_path / "out.safetensors"
    if old:
        target.write_bytes(old)
    before = left_in(tmp_path)

    def stop(done: int, total: int) -> None:
        assert len(left_in(tmp_path)) == len(before) + 1  # it is in the middle of it
        if done > total / 2:
            raise error

    with pytest.raises(error):
        stream_safetensors(target, taken(source), overwrite=True, progress=stop)
    assert left_in(tmp_path) == before
    assert not old or target.read_bytes() == old


def test_an_error_of_a_computation_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> torch.Tensor:
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        stream_safetensors(tmp_path / "out.safetensors", [Entry("w", "F32", (1,), fail)])
    assert left_in(tmp_path) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("loom-ahead", "loom-hash"))]


@pytest.mark.parametrize("wrong", [torch.ones(3), torch.ones(2).half()], ids=["shape", "dtype"])
def test_a_tensor_that_is_not_the_one_announced_is_refused(tmp_path: Path, wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"is not F32 \[2\]"):
        stream_safetensors(tmp_path / "out.safetensors", [Entry("w", "F32", (2,), lambda: wrong)])
    assert left_in(tmp_path) == []


def test_a_tensor_may_follow_from_one_behind_it(tmp_path: Path) -> None:
    """A scale, which as the wider number lies ahead, is known when the weight is: it is computed last."""
    known: dict[str, torch.Tensor] = {}

    def weight() -> torch.Tensor:
        known["scale"] = torch.tensor(0.5)
        return torch.ones(3).to(torch.float8_e4m3fn)

    entries = [
        Entry("scale", "F32", (), lambda: known["scale"], last=True),
        Entry("weight", "F8_E4M3", (3,), weight),
        Entry("more", "U8", (2,), lambda: torch.tensor([1, 2], dtype=torch.uint8)),
    ]
    stream_safetensors(tmp_path / "new.safetensors", entries)
    written = load_file(tmp_path / "new.safetensors")

    assert float(written["scale"]) == 0.5
    assert written["weight"].float().tolist() == [1, 1, 1]
    assert written["more"].tolist() == [1, 2]


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two tensors named 'w'"):
        stream_safetensors(tmp_path / "out.safetensors", [computed("w", torch.ones(1))] * 2)


def test_a_file_that_is_there_is_kept(tmp_path: Path, source: TensorFile) -> None:
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"out\.safetensors: is there already"):
        stream_safetensors(target, taken(source))
    assert target.read_bytes() == b"mine"
    stream_safetensors(target, taken(source), overwrite=True)
    assert len(load_file(target)) == 6


def test_a_file_that_comes_meanwhile_is_kept(tmp_path: Path, source: TensorFile) -> None:
    target = tmp_path / "out.safetensors"
    with pytest.raises(OutputExistsError):
        stream_safetensors(target, taken(source), progress=lambda done, total: target.write_bytes(b"theirs") and None)
    assert target.read_bytes() == b"theirs"
    assert left_in(tmp_path) == ["out.safetensors", "source.safetensors"]


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExistsError, match="It is a folder"):
        stream_safetensors(tmp_path / "out", [computed("w", torch.ones(1))], overwrite=True)


def test_a_file_can_replace_its_own_source(tmp_path: Path, source: TensorFile) -> None:
    old = source["t2"].load()
    entries = [computed("t2", torch.zeros(2, 3)), *taken(source, "t4")]
    stream_safetensors(source.path, entries, overwrite=True)
    assert load_file(source.path)["t2"].tolist() == [[0.0] * 3] * 2
    assert load_file(source.path)["t4"].tolist() == [[4.0] * 3] * 4
    assert old.tolist() == [[2.0] * 3] * 2  # the map is of the old file


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.safetensors").symlink_to(tmp_path / "disk" / "real.safetensors")
    stream_safetensors(tmp_path / "out.safetensors", [computed("w", torch.ones(1))])
    assert (tmp_path / "out.safetensors").is_symlink()
    assert load_file(tmp_path / "disk" / "real.safetensors")["w"].tolist() == [1.0]


def test_a_source_that_changed_is_noticed(tmp_path: Path, source: TensorFile) -> None:
    source.path.write_bytes(source.path.read_bytes() + b" ")
    with pytest.raises(CorruptFileError, match="changed since it was opened"):
        stream_safetensors(tmp_path / "out.safetensors", taken(source))
    assert left_in(tmp_path) == ["source.safetensors"]


def test_a_source_that_ends_meanwhile_is_noticed(tmp_path: Path, source: TensorFile) -> None:
    steps: list[int] = []

    def cut(done: int, total: int) -> None:
        steps.append(done)
        if len(steps) == 2:  # the header and t1 are written, the source is open
            os.truncate(source.path, source.data_start + source["t5"].begin)

    entries = [*taken(source, "t1"), computed("new", torch.ones(1)), *taken(source, "t5")]
    with pytest.raises(CorruptFileError, match=r"source\.safetensors: ended while it was read"):
        stream_safetensors(tmp_path / "out.safetensors", entries, progress=cut)
    assert left_in(tmp_path) == ["source.safetensors"]


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    vast = Entry("w", "F32", (1 << 30, 1 << 20), lambda: torch.ones(1))
    with pytest.raises(
        DiskFullError, match=r"needs 4,503,599,627,\d\d\d,?\d* bytes of disk, [\d,]+ are free"
    ) as caught:
        stream_safetensors(tmp_path / "out.safetensors", [vast])
    assert caught.value.needed > 1 << 52
    assert left_in(tmp_path) == []


def test_the_mode_is_the_users(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        stream_safetensors(tmp_path / "out.safetensors", [computed("w", torch.ones(1))])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.safetensors").stat().st_mode) == 0o640


def test_late_metadata_takes_the_place_of_the_first(tmp_path: Path) -> None:
    """A hash of the written tensors stands in their own header."""
    import hashlib

    def late(written: Path) -> dict[str, str]:
        with written.open("rb") as handle:
            handle.seek(8 + int.from_bytes(handle.read(8), "little"))
            return {"sum": hashlib.sha256(handle.read()).hexdigest()}

    path = tmp_path / "out.safetensors"
    stream_safetensors(path, [computed("w", torch.ones(4))], {"sum": "0" * 64}, late=late)
    assert TensorFile(path).metadata == {"sum": hashlib.sha256(torch.ones(4).numpy().tobytes()).hexdigest()}
    assert load_file(path)["w"].tolist() == [1.0] * 4

    with pytest.raises(ValueError, match="does not fit"):
        stream_safetensors(tmp_path / "b.safetensors", [], {"a": ""}, late=lambda _: {"a": "much longer" * 9})
    assert left_in(tmp_path) == ["out.safetensors"]


def test_few_tensors_are_in_memory_at_a_time(tmp_path: Path) -> None:
    """Computing runs ahead of the writing, but not far."""
    alive = most = 0
    lock = threading.Lock()

    def make() -> torch.Tensor:
        nonlocal alive, most
        tensor = torch.zeros(1000)
        with lock:
            alive += 1
            most = max(most, alive)
        return tensor

    def written(done: int, total: int) -> None:
        nonlocal alive
        if done > 10_000:  # the header comes first
            with lock:
                alive -= 1

    entries = [Entry(f"tensor number {index:03d} " + "x" * 100, "F32", (1000,), make) for index in range(60)]
    stream_safetensors(tmp_path / "out.safetensors", entries, progress=written)
    assert most <= 2 * 4 + 2


@pytest.fixture(autouse=True)
def threads_of_torch() -> Iterator[None]:
    """The writer leaves torch's settings as they were, for this thread and for threads to come."""
    before = torch.get_num_threads()
    yield
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), seen) == (before, [before])
