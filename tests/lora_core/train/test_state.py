"""States on disk: exact, the newest two, and whole whenever the program is killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_core.errors import DiskFullError
from lora_core.train import state as states
from lora_core.train.state import State, load_state, remove_states, save_state, saved_steps
from lora_core.train.stops import ResumeError

FACTS: dict[str, Any] = {
    "settings": {"network": {"rank": 4}},
    "optimizer": {"dict": [["lr", 1e-3]]},
    "caption": "ein Bär, 熊",
}


def state(step: int, value: float | None = None) -> State:
    """A small state, whose numbers are all its step where no other value is given."""
    number = float(step if value is None else value)
    return State(step, {"network.down": torch.full((3, 4), number), "ema.0": torch.full((5,), number)}, FACTS)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def test_a_state_comes_back_bit_for_bit(tmp_path: Path):
    flat = torch.randn(12)
    image = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    tensors = {
        "network.first": flat[:6].view(2, 3),  # two views of one buffer, as of a fused optimizer
        "network.second": flat[4:],
        "network.same": flat[:6].view(2, 3),
        "network.convolution": image,
        "network.turned": torch.randn(4, 3).t(),
        "optimizer.step": torch.tensor(7.0),
        "optimizer.count": torch.tensor([2**40 + 1]),
        "optimizer.none": torch.empty(0, 4),
        "optimizer.special": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "ema.half": torch.randn(9).bfloat16(),
        "ema.parameter": torch.nn.Parameter(torch.randn(3)),
    }
    save_state(tmp_path, State(500, tensors, FACTS))
    loaded = load_state(tmp_path, 500)

    assert loaded.step == 500
    assert loaded.facts == FACTS
    assert loaded.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        found = loaded.tensors[name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), name
        assert bits(found) == bits(tensor.detach()), name
        assert found.is_contiguous(), name


def test_a_loaded_state_can_be_saved_as_a_later_one(tmp_path: Path):
    save_state(tmp_path, state(10))
    old = load_state(tmp_path, 10)
    save_state(tmp_path, State(20, old.tensors, old.facts))

    assert load_state(tmp_path, 20).step == 20


def test_facts_are_for_people_too(tmp_path: Path):
    text = (save_state(tmp_path, state(3)) / "state.json").read_text("utf-8")

    assert text.startswith('{\n "version": 1,\n "step": 3,\n')
    assert "ein Bär, 熊" in text


def test_the_newest_two_steps_are_kept(tmp_path: Path):
    for step in (1, 9, 10, 1_000_000):
        save_state(tmp_path, state(step))

    assert saved_steps(tmp_path) == [10, 1_000_000]
    assert names(tmp_path) == ["step-000010", "step-1000000"]


def test_a_step_that_is_saved_again_counts_as_it_was_saved_last(tmp_path: Path):
    save_state(tmp_path, state(10))
    for value in (1, 2, 3):
        path = save_state(tmp_path, state(20, value))
        assert load_state(tmp_path, 20).tensors["ema.0"][0] == value
        assert names(tmp_path) == ["step-000010", path.name]


def test_there_is_a_whole_state_at_each_moment_of_a_second_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """After every change to the folder's names, what is read is the old state or the new one."""
    seen: list[float] = []

    def looked(do: Any) -> Any:
        def done(*args: Any, **settings: Any) -> Any:
            result = do(*args, **settings)
            seen.append(load_state(tmp_path, saved_steps(tmp_path)[-1]).tensors["ema.0"][0].item())
            return result

        return done

    save_state(tmp_path, state(5, 1))
    monkeypatch.setattr(Path, "rename", looked(Path.rename))
    monkeypatch.setattr(shutil, "rmtree", looked(shutil.rmtree))
    save_state(tmp_path, state(5, 2))

    assert seen[0] == 2  # from the rename on
    assert set(seen) == {2}
    assert len(seen) == 3  # put in place; the old one renamed, and removed


def test_what_a_killed_save_left_is_not_read_and_goes_with_the_next(tmp_path: Path):
    save_state(tmp_path, state(1))
    shutil.copytree(tmp_path / "step-000001", tmp_path / ".partial-1234")
    (tmp_path / "notes").mkdir()  # somebody's own

    assert saved_steps(tmp_path) == [1]
    save_state(tmp_path, state(2))
    assert names(tmp_path) == ["notes", "step-000001", "step-000002"]


def test_a_save_that_fails_leaves_nothing_and_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_state(tmp_path, state(1))
    with pytest.raises(TypeError):
        save_state(tmp_path, State(2, {}, {"settings": object()}))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(DiskFullError, match="needs 68 bytes of disk, 10 are free"):
        save_state(tmp_path, state(3))

    assert names(tmp_path) == ["step-000001"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("spoil", [cut, Path.unlink, lambda path: path.write_bytes(b"\x00" * 200)])
@pytest.mark.parametrize("file", ["state.json", "tensors.safetensors"])
def test_a_damaged_newest_state_stops_and_says_what_to_do(tmp_path: Path, file: str, spoil: Any):
    for step in (100, 200):
        save_state(tmp_path, state(step))
    spoil(tmp_path / "step-000200" / file)

    assert saved_steps(tmp_path)[-1] == 200  # going back to an older one is for the user to decide
    with pytest.raises(ResumeError, match=r"step-000200: .*damaged .*Remove that folder to go on from step 100\."):
        load_state(tmp_path, 200)
    shutil.rmtree(tmp_path / "step-000200")
    assert load_state(tmp_path, saved_steps(tmp_path)[-1]).step == 100


def test_a_damaged_only_state_sends_to_the_start(tmp_path: Path):
    cut(save_state(tmp_path, state(1)) / "tensors.safetensors")

    with pytest.raises(ResumeError, match=r"Start anew with --fresh\."):
        load_state(tmp_path, 1)


def test_a_state_of_another_version_is_not_guessed_at(tmp_path: Path):
    file = save_state(tmp_path, state(1)) / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"version": 2}), "utf-8")

    with pytest.raises(ResumeError, match=r"of version 2, this program reads 1\. .*--fresh"):
        load_state(tmp_path, 1)


def test_a_step_without_a_state(tmp_path: Path):
    with pytest.raises(ResumeError, match=r"no state of step 3\. Start anew\."):
        load_state(tmp_path / "nowhere", 3)
    for step in (1, 4):
        save_state(tmp_path, state(step))
    with pytest.raises(ResumeError, match=r"no state of step 3\. Go on from step 1, 4\."):
        load_state(tmp_path, 3)


def test_a_fresh_start_forgets_the_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Stopped on the way, the run goes on from its newest state, and not from an older one."""
    for step in (1, 2):
        save_state(tmp_path, state(step))
    left: list[list[int]] = []
    remove = states._remove

    def watched(path: Path) -> None:
        left.append(saved_steps(tmp_path))
        remove(path)

    monkeypatch.setattr(states, "_remove", watched)
    remove_states(tmp_path)

    assert left == [[1, 2], [2]]
    assert not tmp_path.exists()
    assert saved_steps(tmp_path) == []


# For each file that it is told, a fork that saves for ever: torch is imported once.
SAVES_FOR_EVER = """
import os, sys
from pathlib import Path
import torch
from lora_core.train.state import State, save_state, saved_steps

torch.set_num_threads(1)
folder = Path(sys.argv[1])
for said in sys.stdin:
    if os.fork() == 0:
        with open(said.strip(), "w") as told:
            print(os.getpid(), file=told, flush=True)
            step = max(saved_steps(folder), default=0)
            while True:
                step += 1
                tensors = {f"network.{n}": torch.full((1000, 100), float(step)) for n in range(8)}
                for _ in range(2):  # an interrupt after a save saves the same step again
                    save_state(folder, State(step, tensors, {"of": step}))
                print(step, file=told, flush=True)
    os.wait()
    print("ended", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks what it kills")
def test_a_kill_at_any_moment_leaves_a_whole_state(tmp_path: Path, repository: Path):
    draws = random.Random(4)
    newest = 0
    folder, told = tmp_path / "states", tmp_path / "told"
    parent = subprocess.Popen(
        [sys.executable, "-c", SAVES_FOR_EVER, str(folder)],
        cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert parent.stdin is not None
    assert parent.stdout is not None

    def said() -> list[int]:
        return [int(line) for line in told.read_text().splitlines()] if told.exists() else []

    for _ in range(6):
        told.unlink(missing_ok=True)
        print(told, file=parent.stdin)
        while len(said()) < 2:  # it has begun
            assert parent.poll() is None
            time.sleep(0.01)
        time.sleep(draws.uniform(0, 0.15))
        os.kill(said()[0], signal.SIGKILL)
        assert parent.stdout.readline() == "ended\n"
        printed = max(said()[1:])

        step = saved_steps(folder)[-1]
        loaded = load_state(folder, step)
        # What was said to be saved is; a save may have been put in place just before the kill.
        assert printed <= step <= printed + 1
        assert step > newest
        assert (loaded.step, loaded.facts) == (step, {"of": step})
        assert len(loaded.tensors) == 8
        assert all(bool((tensor == step).all()) for tensor in loaded.tensors.values())
        newest = step
    save_state(folder, state(newest + 1))
    assert names(folder)[-1] == f"step-{newest + 1:06d}"
    assert len(names(folder)) == 2
    parent.stdin.close()
    assert parent.wait() == 0
