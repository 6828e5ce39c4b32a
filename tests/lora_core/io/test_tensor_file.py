"""Reading safetensors files: the same as the safetensors library on good files, a clear error on bad ones."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from lora_core.errors import CorruptFileError
from lora_core.io import TensorFile
from lora_core.io.dtypes import TORCH_DTYPES

IN_TMP_PATH = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def raw_file(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """A file with this header (text, bytes or an object for JSON), whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def tensor(dtype: str, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Any bit pattern that is a number: NaN would not equal itself."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 100, shape, generator=generator)
    return values.bool() if dtype == torch.bool else values.to(torch.float32).to(dtype)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
tensors = st.dictionaries(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda name: name != "__metadata__"),
    st.builds(random_tensor, st.sampled_from(list(TORCH_DTYPES.values())), shapes, st.integers(0, 1000)),
    max_size=6,
)


@IN_TMP_PATH
@given(tensors=tensors, metadata=st.dictionaries(st.text(), st.text(), max_size=3))
def test_reads_what_the_safetensors_library_writes(
    tmp_path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    path = tmp_path / "file.safetensors"
    save_file(tensors, path, metadata or None)  # an empty file with empty metadata is one that it cannot read itself
    file = TensorFile(path)
    reference = load_file(path)

    assert set(file) == set(reference)
    assert file.metadata == metadata
    for name, expected in reference.items():
        assert file[name].shape == tuple(expected.shape)
        loaded = file[name].load()
        assert loaded.dtype == expected.dtype
        assert torch.equal(bits(loaded), bits(expected))


def test_opening_reads_the_header_alone(tmp_path: Path) -> None:
    """A terabyte of which no byte is on disk opens at once."""
    path = raw_file(tmp_path / "sparse.safetensors", {"w": tensor("F16", [1 << 20, 1 << 19], 0, 1 << 40)})
    try:
        os.truncate(path, path.stat().st_size + (1 << 40))
    except OSError:
        pytest.skip("this file system has no sparse files")
    assert TensorFile(path)["w"].shape == (1 << 20, 1 << 19)


def test_a_tensor_at_an_odd_offset_is_read(tmp_path: Path) -> None:
    header = {"a": tensor("U8", [1], 0, 1), "b": tensor("F32", [2], 1, 9)}
    data = b"\x07" + torch.tensor([1.5, -2.0]).numpy().tobytes()
    file = TensorFile(raw_file(tmp_path / "odd.safetensors", header, data))
    assert file["b"].load().tolist() == [1.5, -2.0]


GOOD = tensor("F32", [2], 0, 8)
EIGHT = b"\0" * 8
BAD_HEADERS: dict[str, tuple[Any, bytes, str]] = {
    "not JSON": (b"{", b"", "header is not JSON"),
    "not UTF-8": (b'{"\xff": 1}', b"", "header is not JSON"),
    "a list": ([], b"", "a JSON list, expected an object"),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", "header is not JSON"),
    "endless number": (b'{"a": ' + b"9" * 5000 + b"}", b"", "header is not JSON"),
    "half a character": (b'{"\\ud800": 1}', b"", "no valid text"),
    "twice": (b'{"a": {"dtype":"U8","shape":[0],"data_offsets":[0,0]}, "a": {}}', b"", "'a' stands twice"),
    "metadata a list": ({"__metadata__": []}, b"", "__metadata__ is not an object"),
    "entry a number": ({"a": 1}, b"", "lacks dtype, shape or data_offsets"),
    "entry a list": ({"a": [1, 2]}, b"", "lacks dtype, shape or data_offsets"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, EIGHT, "lacks dtype, shape or data_offsets"),
    "three offsets": ({"a": {**GOOD, "data_offsets": [0, 4, 8]}}, EIGHT, "lacks dtype, shape or data_offsets"),
    "unknown dtype": ({"a": tensor("F12", [2], 0, 8)}, EIGHT, "dtype 'F12' is not known"),
    "dtype a list": ({"a": tensor(["F32"], [2], 0, 8)}, EIGHT, "is not known"),  # type: ignore[arg-type]
    "shape a text": ({"a": tensor("U8", "", 0, 1)}, b"\0", "not whole numbers"),
    "shape with a fraction": ({"a": tensor("F32", [2.0], 0, 8)}, EIGHT, "not whole numbers"),
    "shape with true": ({"a": tensor("F32", [True, 2], 0, 8)}, EIGHT, "not whole numbers"),
    "negative size": ({"a": tensor("F32", [-2], 0, 8)}, EIGHT, "not whole numbers"),
    "negative offset": ({"a": tensor("F32", [2], -8, 0)}, EIGHT, "not whole numbers"),
    "huge shape": ({"a": tensor("F32", [1 << 40, 1 << 40, 0], 0, 0)}, b"", "no tensor can have the shape"),
    "many dimensions": ({"a": tensor("U8", [1] * 65, 0, 1)}, b"\0", "no tensor can have the shape"),
    "backwards": ({"a": tensor("F32", [2], 8, 0)}, EIGHT, "only 8 bytes of data"),
    "truncated": ({"a": tensor("F32", [4], 0, 16)}, EIGHT, "bytes 0 to 16, but only 8 bytes of data are there: trunc"),
    "wrong size": ({"a": tensor("F32", [3], 0, 8)}, EIGHT, "8 bytes, expected 12 for F32 [3]"),
    "overlap": ({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [1], 4, 8)}, EIGHT, "overlaps"),
    "hole": ({"a": tensor("F32", [1], 4, 8)}, EIGHT, "4 bytes before it belong to no tensor"),
    "rest": ({"a": tensor("F32", [1], 0, 4)}, EIGHT, "4 bytes behind the last tensor"),
}


@pytest.mark.parametrize("dtype", TORCH_DTYPES.values(), ids=str)
@pytest.mark.parametrize("shape", [(), (1,)], ids=["scalar", "list of one"])
def test_a_single_number_is_the_same_without_a_tensor(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    """An alpha, which a file has hundreds of."""
    value = torch.tensor(1.0 if dtype == torch.bool else 13.0).to(dtype).reshape(shape)
    save_file({"alpha": value, "before": torch.zeros(3, dtype=torch.uint8)}, tmp_path / "numbers.safetensors")
    with TensorFile(tmp_path / "numbers.safetensors") as file:
        assert file["alpha"].item() == float(file["alpha"].load().item().real) == float(value.item().real)


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_a_bad_header_is_one_line(tmp_path: Path, case: str) -> None:
    header, data, expected = BAD_HEADERS[case]
    path = raw_file(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(CorruptFileError) as caught:
        TensorFile(path)
    message = str(caught.value)
    assert expected in message
    assert message.startswith("bad.safetensors: ")
    assert "\n" not in message
    assert len(message) < 400
    assert str(tmp_path) not in message


OTHER_FILES = {
    b"": "only 0 bytes long",
    b"\x05\0\0": "only 3 bytes long",
    b"\0" * 8: "header is not JSON",
    b"PK\x03\x04" + b"\0" * 60: "a pickle (PyTorch .pt/.ckpt), not safetensors. Convert it",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P": "a pickle",
    b"<!DOCTYPE html><html></html>": "a web page, not safetensors. The download failed",
    b"\n <html><head></head></html>": "a web page",
    b'{"error": "Invalid username"}': "a text (JSON)",
    b"GGUF\x03\0\0\0" + b"\0" * 40: "a GGUF file",
    b"version https://git-lfs.github.com/spec/v1\noid": "a Git LFS pointer, not safetensors. Run `git lfs pull`",
    (1 << 62).to_bytes(8, "little") + b"{}": "truncated or not safetensors",
    (50).to_bytes(8, "little") + b"{}": "header says 50 bytes, the file has 10",
}


@pytest.mark.parametrize("content", OTHER_FILES, ids=lambda content: repr(content[:12]))
def test_files_of_other_kinds_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError) as caught:
        TensorFile(path)
    assert OTHER_FILES[content] in str(caught.value)


@IN_TMP_PATH
@given(cut=st.floats(0, 1), position=st.floats(0, 1), byte=st.integers(0, 255))
def test_damage_is_an_error_or_harmless(tmp_path: Path, cut: float, position: float, byte: int) -> None:
    """A cut file never opens; a changed byte gives a CorruptFileError or a file whose tensors can all be read."""
    path = tmp_path / "damaged.safetensors"
    save_file({"a": torch.ones(3, 2), "b": torch.zeros(5, dtype=torch.int8)}, path, {"note": "é"})
    whole = path.read_bytes()

    path.write_bytes(whole[: int(cut * (len(whole) - 1))])
    with pytest.raises(CorruptFileError):
        TensorFile(path)

    changed = bytearray(whole)
    changed[int(position * (len(whole) - 1))] = byte
    path.write_bytes(changed)
    try:
        file = TensorFile(path)
    except CorruptFileError:
        return
    for ref in file.values():
        assert tuple(ref.load().shape) == ref.shape


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "U8", "I64"]) | json_values,
        "shape": st.lists(st.integers(-2, 4), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-8, 32), min_size=2, max_size=2) | json_values,
    },
)


@IN_TMP_PATH
@given(
    header=st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), entries | json_values),
    data=st.binary(max_size=32),
)
def test_any_json_is_an_error_or_a_file(tmp_path: Path, header: dict[str, Any], data: bytes) -> None:
    path = raw_file(tmp_path / "any.safetensors", header, data)
    try:
        file = TensorFile(path)
    except CorruptFileError:
        return
    for ref in file.values():
        assert tuple(ref.load().shape) == ref.shape
        assert all(isinstance(text, str) for text in file.metadata.values())


def test_metadata_of_other_types_is_text(tmp_path: Path) -> None:
    file = TensorFile(raw_file(tmp_path / "meta.safetensors", {"__metadata__": {"steps": 100, "tags": ["a"]}}))
    assert file.metadata == {"steps": "100", "tags": '["a"]'}
    assert len(file) == 0


def open_handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def maps_of(name: str) -> int:
    return sum(name in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts handles in /proc")
@pytest.mark.parametrize("use", [lambda file: None, lambda file: file["w"].load().sum()], ids=["opened", "read"])
def test_a_thousand_files_leave_no_handle(tmp_path: Path, use: Callable[[TensorFile], object]) -> None:
    path = tmp_path / "leak.safetensors"
    save_file({"w": torch.ones(64, 64)}, path)
    before = open_handles()
    for _ in range(1000):
        use(TensorFile(path))
    gc.collect()
    assert open_handles() <= before + 1
    assert maps_of("leak.safetensors") <= 1


def test_a_bad_file_leaves_no_handle(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "bad.safetensors", b"{")
    before = open_handles()
    for _ in range(100):
        with pytest.raises(CorruptFileError):
            TensorFile(path)
    assert open_handles() <= before


def test_tensors_outlive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.arange(6.0)}, path)
    with TensorFile(path) as file:
        tensor = file["w"].load()
    del file
    gc.collect()
    path.unlink()
    assert tensor.tolist() == [0, 1, 2, 3, 4, 5]


def test_forgotten_pages_come_back(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    values = torch.arange(100_000.0)
    save_file({"a": torch.ones(3), "w": values}, path)
    file = TensorFile(path)
    tensor = file["w"].load()
    assert torch.equal(tensor, values)
    file.forget(file["w"])
    file.forget(file["a"])
    assert torch.equal(tensor, values)


def test_reopen_refuses_another_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.ones(3)}, path)
    file = TensorFile(path)
    file.reopen().close()
    save_file({"w": torch.zeros(4)}, path)
    with pytest.raises(CorruptFileError, match="changed since it was opened"):
        file.reopen()


OVERWRITTEN = """
import shutil, sys
from pathlib import Path
from lora_core.errors import CorruptFileError
from lora_core.io import TensorFile

path, small = map(Path, sys.argv[1:])
file = TensorFile(path)
shutil.copyfile(small, path)  # writes into the same file, which others have mapped
try:
    file["w"].load().sum()
except CorruptFileError as error:
    print(error)
"""


def test_a_file_that_was_overwritten_by_a_shorter_one_does_not_kill_the_process(tmp_path: Path) -> None:
    path, small = tmp_path / "w.safetensors", tmp_path / "small.safetensors"
    save_file({"w": torch.ones(1 << 18)}, path)
    save_file({"w": torch.ones(2)}, small)

    done = subprocess.run(
        [sys.executable, "-c", OVERWRITTEN, str(path), str(small)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "w.safetensors: changed since it was opened. Load it again when nothing writes to it.\n"


def write_in_place(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """As ``cp`` does onto a file that is there; the time is set, as the clock of a file system is coarse."""
    path.write_bytes(save(tensors))
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("length", [2, 3, 4], ids=["shorter", "as long", "longer"])
def test_numbers_of_another_file_are_not_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.ones(3)}, path)
    file = TensorFile(path)
    write_in_place(path, {"w": torch.zeros(length)})

    with pytest.raises(CorruptFileError, match="changed since it was opened"):
        file["w"].load()
    assert TensorFile(path)["w"].load().tolist() == [0.0] * length


def test_a_file_that_was_replaced_or_deleted_is_read_as_it_was(tmp_path: Path) -> None:
    """A download into another file that then takes the name leaves ours alone."""
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.ones(3)}, path)
    file = TensorFile(path)

    save_file({"w": torch.zeros(9)}, tmp_path / "new")
    os.replace(tmp_path / "new", path)
    assert file["w"].load().tolist() == [1.0] * 3
    path.unlink()
    assert file["w"].load().tolist() == [1.0] * 3
