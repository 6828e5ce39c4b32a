"""The command line as a user meets it: exit status, what is on which stream, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import running
import small_models
from command_line import Loom, one_line
from lora_core.architectures import ARCHITECTURES
from lora_core.cli.lora_option import parse_lora
from lora_core.merge import DTYPES, merge_to_checkpoint


def test_merge_does_what_the_library_does(loom: Loom, base: Path, lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.safetensors"
    status, printed, err = loom("merge-to-checkpoint", base, "--lora", f"{lora}:0.8:0.5", "-o", out, "--json")
    assert (status, err) == (0, "")
    report = json.loads(printed)
    assert report["loras"][0]["modules"] == {"total": 129, "fitting": 129}
    assert report["tensors"]["patched"] == 129

    stack = small_models.stack_of(small_models.adapter(small_models.lora_tensors()))
    merge_to_checkpoint(base, stack, tmp_path / "wanted.safetensors")
    wanted = load_file(tmp_path / "wanted.safetensors")
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in load_file(out).items())


def test_merge_of_a_stack_from_a_folder_for_people(loom: Loom, repository: Path, lora: Path, tmp_path: Path) -> None:
    arguments = ["--lora", f"{lora}:0.8", "--lora", f"{lora}:-0.2:0", "--dtype", "fp8"]
    status, out, err = loom(
        "merge-to-checkpoint", repository / "demo/model", *arguments, "-o", tmp_path / "n.safetensors"
    )
    assert (status, err) == (0, "")
    assert "ink.safetensors: 129 of 129 modules" in out
    assert "model (loom_demo)" in out
    assert re.search(r"lost to rounding .*?[\d.]+% of a weight, [\d.]+% of its change, [\d.]+% at", out)
    assert "most of it in" in out
    assert (tmp_path / "n.safetensors").exists()


FAULTS: dict[str, tuple[list[str], int, str]] = {
    "no such checkpoint": (
        ["none.safetensors", "--lora", "ink.safetensors"],
        1,
        "none.safetensors: there is no such file",
    ),
    "no such LoRA": (["base.safetensors", "--lora", "no.safetensors:0.8"], 1, "no.safetensors: there is no such file"),
    "a LoRA as checkpoint": (["ink.safetensors", "--lora", "ink.safetensors"], 1, "It looks like a LoRA"),
    "a checkpoint as LoRA": (
        ["base.safetensors", "--lora", "base.safetensors"],
        1,
        "not a LoRA file in a known format",
    ),
    "no LoRA": (["base.safetensors"], 2, "Missing option '--lora'"),
    "no number": (["base.safetensors", "--lora", "ink.safetensors:much"], 2, "'much' is no strength"),
    "nan": (["base.safetensors", "--lora", "ink.safetensors:nan"], 2, "'nan' is no strength"),
    "dtype": (["base.safetensors", "--lora", "ink.safetensors", "--dtype", "fp61"], 2, "did you mean 'fp16'"),
    "option": (["base.safetensors", "--lora", "ink.safetensors", "--dtipe", "fp16"], 2, "No such option"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_one_line(
    loom: Loom, base: Path, lora: Path, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, wanted, message = FAULTS[case]
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    status, out, err = loom("merge-to-checkpoint", *arguments, "-o", "new.safetensors", "--json")
    assert (status, out) == (wanted, "")
    assert one_line(err)
    assert message in err
    assert sorted(os.listdir(tmp_path)) == before


def test_output_is_kept_and_is_safetensors(loom: Loom, base: Path, lora: Path, tmp_path: Path) -> None:
    status, _, err = loom("merge-to-checkpoint", base, "--lora", lora, "-o", tmp_path / "new.ckpt")
    assert status == 2
    assert "must end in .safetensors, got 'new.ckpt'" in err
    status, _, err = loom("merge-to-checkpoint", base, "--lora", lora, "-o", lora)
    assert status == 1
    assert one_line(err)
    assert "is there already" in err
    assert loom("merge-to-checkpoint", base, "--lora", lora, "-o", base, "--overwrite").status == 0


def test_strict(loom: Loom, base: Path, tmp_path: Path) -> None:
    tensors = small_models.lora_tensors() | {"lora_unet_nowhere.alpha": torch.tensor(1.0)}
    save_file(tensors, tmp_path / "part.safetensors")
    arguments = ("merge-to-checkpoint", base, "--lora", tmp_path / "part.safetensors", "-o", tmp_path / "n.safetensors")
    status, _, err = loom(*arguments, "--strict")
    assert status == 1
    assert one_line(err)
    assert "1 of 388 tensors are not used (lora_unet_nowhere.alpha)" in err
    assert loom(*arguments).status == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device", "new.safetensors")])
def test_what_stops_a_merge_leaves_nothing(
    loom: Loom, base: Path, lora: Path, tmp_path: Path, error: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lora_core.merge.entries as module

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, "apply_patch", fail)
    before = sorted(os.listdir(tmp_path))
    status, out, err = loom("merge-to-checkpoint", base, "--lora", lora, "-o", tmp_path / "new.safetensors")
    assert sorted(os.listdir(tmp_path)) == before
    assert out == ""
    assert one_line(err)
    if error is KeyboardInterrupt:
        assert (status, err) == (130, "loom: stopped; nothing was left half-written\n")
    else:
        assert (status, err) == (1, "loom: new.safetensors: No space left on device.\n")


def process(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lora_core", *map(str, arguments)]
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        command,
        cwd=root,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_heed_signals if os.name == "posix" else None,
    )


def _heed_signals() -> None:
    """What ignores a signal hands that on to its children, and shells have jobs in the background ignore SIGINT."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="holds the command with a named pipe")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_real_process_with_one_line(tmp_path: Path, number: signal.Signals) -> None:
    """The command waits for the checkpoint, a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "base.safetensors")
    arguments = ["merge-to-checkpoint", tmp_path / "base.safetensors", "--lora", "x", "-o", tmp_path / "n.safetensors"]
    started = process(*arguments)
    # Opening a pipe for writing without waiting works as soon as somebody reads, so the command is at it.
    for _ in range(600):
        try:
            writer = os.open(tmp_path / "base.safetensors", os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError:
            time.sleep(0.1)
    out, err = _signalled(started, number)
    os.close(writer)
    assert (started.returncode, out, err) == (130, "", "loom: stopped; nothing was left half-written\n")


def _signalled(started: subprocess.Popen[str], number: signal.Signals) -> tuple[str, str]:
    """Signal until it ends: a signal between Python's last look for one and a read that waits is not seen in time.

    Seldom, since one more while Python takes itself down after the line is printed ends it by the signal itself.
    """
    for _ in range(6):
        started.send_signal(number)
        try:
            return started.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            continue
    started.kill()
    return started.communicate()


def test_help_lists_only_what_works() -> None:
    status, out, err = running.loom("--help")
    assert status == 0
    assert "inspect" in out
    assert "merge-to-checkpoint" in out
    assert "convert" in out
    assert "train" in out
    assert not any(f"\n  {name}" in out for name in ("resize", "extract"))
    assert err == ""


def test_no_arguments_is_wrong_usage_with_the_help(loom: Loom) -> None:
    status, out, err = loom()
    assert (status, out) == (2, "")
    assert "Commands:" in err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("loom inspect --architecture sdx", sorted(name for name in ARCHITECTURES.names if name.startswith("sdx"))),
        ("loom merge-to-checkpoint a --dtype fp", ["fp16", "fp32", "fp8"]),
        ("loom merge", ["merge-to-checkpoint"]),
        ("loom train --set network.ra", ["network.rank=", "network.rank_dropout="]),
        ("loom train --init sdxl-s", ["sdxl-style", "sdxl-subject"]),
    ],
)
def test_completion_knows_the_tables(words: str, wanted: list[str]) -> None:
    count = len(words.split()) - 1
    environment = {"_LOOM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    out = running.loom(environment=environment).out
    assert sorted(out.split()) == wanted


def test_completion_can_be_installed(tmp_path: Path) -> None:
    """Into a home of its own; typer finds the shell by looking at the parent process, so it is told here."""
    home = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    out = running.loom("--install-completion", "bash", environment=home).out
    assert "completion installed" in out
    assert any("_LOOM_COMPLETE" in path.read_text() for path in tmp_path.rglob("*.sh"))


def test_a_missing_package_is_one_line() -> None:
    code = """
import sys
from importlib.abc import MetaPathFinder
from lora_core.cli import main

class Hide(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(name, name=package)

sys.meta_path.insert(0, Hide())
for package in ("typer", "rich"):
    print(package, main(["inspect", "x"]))
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    wanted = [
        f"loom: the command line needs the package '{package}'. "
        'Run `pip install ".[cli]"` in the folder of your clone of LoRA Loom.'
        for package in ("typer", "rich")
    ]
    assert (done.stdout.splitlines(), done.stderr.splitlines()) == (["typer 1", "rich 1"], wanted)


def test_a_reader_that_has_seen_enough_is_no_error(lora: Path) -> None:
    started = process("inspect", lora, "--json", "--modules")
    assert started.stdout is not None
    started.stdout.close()
    assert started.stderr is not None
    assert started.stderr.read() == ""
    assert started.wait(60) == 1


@pytest.mark.parametrize(
    ("text", "path", "model", "clip"),
    [
        ("ink.safetensors", "ink.safetensors", 1.0, 1.0),
        ("ink.safetensors:0.8", "ink.safetensors", 0.8, 0.8),
        ("a/ink.safetensors:0.8:-0.5", "a/ink.safetensors", 0.8, -0.5),
        ("ink.safetensors:1:0", "ink.safetensors", 1.0, 0.0),
        (r"C:\loras\ink.safetensors", r"C:\loras\ink.safetensors", 1.0, 1.0),
        (r"C:\loras\ink.safetensors:0.8:0.5", r"C:\loras\ink.safetensors", 0.8, 0.5),
        ("style: 2.safetensors:.5", "style: 2.safetensors", 0.5, 0.5),
        ("ink:1:2:3", "ink:1", 2.0, 3.0),
    ],
)
def test_strengths_are_read_from_the_end(text: str, path: str, model: float, clip: float) -> None:
    option = parse_lora(text)
    assert str(option.path) == path
    assert (option.strengths.model, option.strengths.clip) == (model, clip)


def test_a_file_of_exactly_this_name_wins(tmp_path: Path) -> None:
    path = tmp_path / "ink:0.8"
    path.write_bytes(b"")
    assert parse_lora(str(path)).path == path


def test_the_help_of_dtype_has_all(loom: Loom) -> None:
    status, out, _ = loom("merge-to-checkpoint", "--help")
    assert status == 0
    assert all(dtype in out for dtype in DTYPES)
