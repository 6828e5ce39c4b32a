"""Pickles of tensors: the same as torch reads from good files, one clear line and no code run for bad ones."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_core.errors import CorruptFileError
from lora_core.io.dtypes import TORCH_DTYPES
from lora_core.io.pickle_outline import MAX_PICKLE, Machine, PickleFault
from lora_core.io.pickled import TensorPickle

IN_TMP_PATH = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def saved(path: Path, value: Any, *, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def fault(path: Path) -> str:
    with pytest.raises(CorruptFileError) as caught:
        TensorPickle(path)
    message = caught.value.message
    assert "\n" not in message
    assert len(message) < 600
    return message


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    values = torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed))
    return values.bool() if dtype == torch.bool else values.to(torch.float32).to(dtype)


tables = st.dictionaries(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda name: "alpha" not in name),
    st.builds(
        random_tensor,
        st.sampled_from(list(TORCH_DTYPES.values())),
        st.lists(st.integers(0, 4), max_size=4).map(tuple),
        st.integers(0, 1000),
    ),
    max_size=5,
)


@IN_TMP_PATH
@given(tensors=tables)
def test_reads_what_torch_saves(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = saved(tmp_path / "file.pt", tensors)
    file = TensorPickle(path)
    reference = torch.load(path, weights_only=True)

    assert set(file) == set(reference)
    for name, expected in reference.items():
        assert file[name].shape == tuple(expected.shape)
        assert TORCH_DTYPES[file[name].dtype] == expected.dtype
        assert torch.equal(bits(file[name].load()), bits(expected))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_tensors_as_programs_keep_them(tmp_path: Path, zipped: bool) -> None:
    """Transposed, a part of another one, sharing numbers, a parameter, and a number that is no tensor."""
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = OrderedDict(
        turned=whole.t(), rows=whole[1:3], again=whole, parameter=torch.nn.Parameter(torch.ones(2)), empty=whole[:0]
    )
    file = TensorPickle(saved(tmp_path / "file.pt", tensors, zipped=zipped))
    for name, expected in tensors.items():
        assert torch.equal(file[name].load(), expected), name
        assert not file[name].load().requires_grad


def test_opening_makes_no_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "file.pt", {"a": torch.ones(3)})
    monkeypatch.setattr(torch, "load", None)
    assert TensorPickle(path)["a"].shape == (3,)


def test_a_table_in_a_table_is_unwrapped(tmp_path: Path) -> None:
    checkpoint = {
        "epoch": 3,
        "state_dict": {"x.lora_up.weight": torch.ones(2, 1)},
        "optimizer_states": [{"state": {0: {"step": 7}}, "lr": 1e-4}],
        "note": "by hand",
    }
    file = TensorPickle(saved(tmp_path / "last.ckpt", checkpoint))
    assert list(file) == ["x.lora_up.weight"]
    assert file.metadata == {"epoch": "3", "note": "by hand"}
    assert file.notes == ("optimizer_states holds no tensor of a LoRA, so it is left out",)


def test_tables_of_parts_are_joined(tmp_path: Path) -> None:
    parts = {"unet": {"a.weight": torch.ones(1)}, "text_encoder": {"b.weight": torch.zeros(1)}}
    assert set(TensorPickle(saved(tmp_path / "both.bin", parts))) == {"unet.a.weight", "text_encoder.b.weight"}


def test_a_list_has_numbers_for_names(tmp_path: Path) -> None:
    """The first LoRA files for Stable Diffusion: a list of up, down, up, down, ..."""
    file = TensorPickle(saved(tmp_path / "lora.pt", [torch.zeros(2, 1), torch.ones(1, 2)]))
    assert list(file) == ["0", "1"]
    assert file["1"].load().tolist() == [[1.0, 1.0]]


def test_numbers_and_texts_beside_tensors(tmp_path: Path) -> None:
    table = {"m.lora_up.weight": torch.ones(1), "m.alpha": 8, "n.alpha": 0.5, "rank": 4, "title": "ink", "none": None}
    file = TensorPickle(saved(tmp_path / "file.pt", table))
    assert (file["m.alpha"].item(), file["n.alpha"].item()) == (8.0, 0.5)
    assert file.metadata == {"rank": "4", "title": "ink"}
    assert file.notes == ("none holds no tensor of a LoRA, so it is left out",)


def test_a_name_that_stands_for_two_things_is_the_first(tmp_path: Path) -> None:
    file = TensorPickle(saved(tmp_path / "file.pt", {"a.alpha": torch.tensor(1.0), "a": {"alpha": 2.0}}))
    assert file["a.alpha"].item() == 1.0
    assert len(file.notes) == 1


def test_an_empty_table_holds_no_tensor(tmp_path: Path) -> None:
    assert len(TensorPickle(saved(tmp_path / "file.pt", {}))) == 0


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    message = fault(saved(tmp_path / "file.pt", {"a": torch.ones(1), "b": Harmful()}, zipped=zipped))
    assert "it wants 'posix.mkdir', which is no part of a tensor: to load it could run code" in message
    assert "as safetensors" in message
    assert not (tmp_path / "harm").exists()


def test_a_class_of_another_program_is_named(tmp_path: Path) -> None:
    """Checkpoints of trainers keep their settings as objects."""
    import argparse

    message = fault(saved(tmp_path / "last.ckpt", {"state_dict": {}, "settings": argparse.Namespace()}))
    assert "'argparse.Namespace'" in message


# Bad pickles: each an edit of a good one.


def pickled(value: Any) -> bytes:
    """The pickle inside of what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return archive.read("archive/data.pkl")


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def outline_of(tensor: torch.Tensor, old: bytes, new: bytes) -> bytes:
    """The pickle of a tensor, with some bytes of it replaced."""
    data = pickled({"a": tensor})
    assert old in data
    return data.replace(old, new, 1)


def int32(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


LONG = b"\x8a\x06" + (1 << 40).to_bytes(6, "little")
ONE = torch.ones(1)
BAD: dict[str, tuple[Callable[[], dict[str, bytes]], str]] = {
    "no pickle": (lambda: {"x/readme.txt": b"hello"}, "a zip, but not one of torch.save"),
    "two folders": (lambda: {"x/data.pkl": b".", "y/data/0": b""}, "not one of torch.save"),
    "a program": (lambda: {"x/data.pkl": b".", "x/constants.pkl": b"."}, "TorchScript program"),
    "big endian": (lambda: {"x/data.pkl": b".", "x/byteorder": b"big"}, "another kind of processor"),
    "empty pickle": (lambda: {"x/data.pkl": b""}, "has no end within 0 bytes"),
    "no storage": (lambda: {"x/data.pkl": pickled({"a": ONE})}, "4 bytes, of which the file holds nothing"),
    "short storage": (
        lambda: {"x/data.pkl": pickled({"a": ONE}), "x/data/0": b"ab"},
        "4 bytes, of which the file holds 2 bytes",
    ),
    "a huge storage": (
        lambda: {"x/data.pkl": outline_of(ONE, b"cpuq\x06K\x01", b"cpuq\x06" + LONG), "x/data/0": b"abcd"},
        "4398046511104 bytes, of which the file holds 4",
    ),
    "one number shown many times": (
        lambda: {
            "x/data.pkl": outline_of(torch.ones(1).expand(200), b"K\xc8\x85", LONG + b"\x85"),
            "x/data/0": b"abcd",
        },
        "has the shape [1099511627776], but its storage only 4 bytes",
    ),
    "a stride out of it": (
        lambda: {"x/data.pkl": outline_of(torch.ones(2)[:2], b"K\x01\x85", b"M\xff\xff\x85"), "x/data/0": bytes(8)},
        "has the shape [2], but its storage only 8 bytes",
    ),
    "a negative size": (
        lambda: {"x/data.pkl": outline_of(torch.ones(3), b"K\x03\x85", int32(-3) + b"\x85"), "x/data/0": bytes(12)},
        "not whole numbers >= 0",
    ),
    "another instruction": (lambda: {"x/data.pkl": b"\x80\x02\x95."}, "its instruction 0x95"),
    "a protocol torch does not read": (
        lambda: {"x/data.pkl": pickle.dumps({"a" * 9: 1}, protocol=4)},
        "its instruction 0x95 at byte",
    ),
    "no end": (lambda: {"x/data.pkl": b"\x80\x02" + b"N" * 50}, "has no end"),
    "a call of a table": (lambda: {"x/data.pkl": b"\x80\x02})R."}, "it calls what is no function"),
    "attributes of a list": (lambda: {"x/data.pkl": b"\x80\x02]}b."}, "it sets attributes of what is no table"),
    "memory by numbers": (lambda: {"x/data.pkl": b"\x80\x02Nr\xff\xff\xff\xff."}, "keeps a value under the number"),
    "memory by texts": (lambda: {"x/data.pkl": b"\x80\x02X\xff\xff\xff\x7f."}, "breaks off at byte"),
    "a million lists": (lambda: {"x/data.pkl": b"\x80\x02" + b"]" * 1_000_001 + b"."}, "more than 1000000 lists"),
    "a million marks": (lambda: {"x/data.pkl": b"\x80\x02" + b"(" * 1_000_001 + b"."}, "more than 1000000 lists"),
    "a module of torch": (lambda: {"x/data.pkl": b"\x80\x02ctorch._dynamo\nconfig\n."}, "it wants 'torch._dynamo"),
    "nothing but a number": (lambda: {"x/data.pkl": b"\x80\x02K\x01Q."}, "damaged at byte"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_pickle_is_one_line(tmp_path: Path, case: str) -> None:
    members, expected = BAD[case]
    path = zipped(tmp_path / "bad.pt", members())
    assert expected in fault(path)


def test_a_compressed_pickle_is_refused_unopened(tmp_path: Path) -> None:
    """A zip bomb: a megabyte that would become a gigabyte."""
    path = zipped(tmp_path / "bomb.pt", {"x/data.pkl": b"N" * (1 << 20)}, zipfile.ZIP_DEFLATED)
    assert "its member 'x/data.pkl' is compressed" in fault(path)


def test_tables_that_hold_each_other_are_not_walked_for_ever(tmp_path: Path) -> None:
    """Four levels of a thousand entries that all are the next level: a trillion, in a few kilobytes."""
    level: Any = {}
    for _ in range(4):
        level = {str(number): level for number in range(1000)}
    assert "more than 200000 entries" in fault(saved(tmp_path / "file.pt", level))


def test_a_table_that_holds_itself_has_an_end(tmp_path: Path) -> None:
    table: dict[str, Any] = {"a": torch.ones(1)}
    table["self"] = table
    file = TensorPickle(saved(tmp_path / "file.pt", table))
    assert file["self.self.a"].load().tolist() == [1.0]
    assert "a" in file


def test_only_so_much_of_a_pickle_is_run() -> None:
    with pytest.raises(PickleFault, match="has no end within"):
        Machine(b"N" * (MAX_PICKLE + 10)).run()


def test_cut_off_files(tmp_path: Path) -> None:
    good = saved(tmp_path / "good.pt", {"a": torch.arange(100.0)}).read_bytes()
    old = saved(tmp_path / "old.pt", {"a": torch.arange(100.0)}, zipped=False).read_bytes()
    for whole in (good, old):
        for length in (5, 30, 200, len(whole) // 2, len(whole) - 1):
            path = tmp_path / "cut.pt"
            path.write_bytes(whole[:length])
            assert fault(path).startswith("cut.pt: ")


def test_a_file_that_is_written_over_is_not_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "file.pt", {"a": torch.ones(1000), "b": torch.ones(1000)})
    file = TensorPickle(path)
    file["a"].load()
    with path.open("r+b") as handle:
        handle.truncate(100)
    with pytest.raises(CorruptFileError, match="changed since it was opened"):
        file["b"].load()


def test_what_torch_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("first\nsecond")

    file = TensorPickle(saved(tmp_path / "file.pt", {"a": torch.ones(1)}))
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(CorruptFileError, match=r"torch does not read this pickle \(RuntimeError: first second\)"):
        file["a"].load()
