"""The command line as a user meets it: exit status, what is on which stream, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

import small_models
from lora_core.architectures import ARCHITECTURES
from lora_core.cli import main
from lora_core.cli.lora_option import parse_lora
from lora_core.merge import DTYPES, merge_to_checkpoint


class Result(NamedTuple):
    status: int
    out: str
    err: str


Loom = Callable[..., Result]


@pytest.fixture
def loom(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Loom:
    monkeypatch.setenv("COLUMNS", "200")  # so that tables do not wrap
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Result:
        try:
            status = main([str(argument) for argument in arguments])
        finally:
            signal.signal(signal.SIGTERM, before)
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture
def base(tmp_path: Path) -> Path:
    small_models.write_checkpoint(tmp_path / "base.safetensors")
    return tmp_path / "base.safetensors"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    tensors = small_models.lora_tensors() | {"bundle_emb.ink.clip_l": torch.zeros(1, 128)}
    save_file(tensors, tmp_path / "ink.safetensors", {"modelspec.trigger_phrase": "[bold]ink[/bold]"})
    return tmp_path / "ink.safetensors"


def one_line(text: str) -> bool:
    return text.startswith("loom: ") and text.count("\n") == 1


def test_inspect_for_people(loom: Loom, lora: Path) -> None:
    status, out, err = loom("inspect", lora)
    assert status == 0
    assert err == ""
    assert "ink.safetensors" in out
    assert "388 of 388" in out
    assert "4 (129 modules)" in out
    assert "[bold]ink[/bold]" in out  # text of a file is shown as it is, not as markup
    assert "ink (clip_l 1)" in out


def test_inspect_says_why_tensors_are_left_over(loom: Loom, tmp_path: Path) -> None:
    tensors = small_models.lora_tensors(only="attn1")
    tensors |= {f"lora_unet_other_{number}.alpha": torch.tensor(1.0) for number in range(3)}
    save_file(tensors, tmp_path / "part.safetensors")
    status, out, _ = loom("inspect", tmp_path / "part.safetensors")
    assert status == 0
    assert "unmatched" in out
    assert "1 x Loom Demo has no module lora_unet_other_0 (such as lora_unet_other_0.alpha)" in out


def test_inspect_as_json_is_one_document(loom: Loom, lora: Path) -> None:
    status, out, err = loom("inspect", lora, lora, "--json", "--modules")
    assert (status, err) == (0, "")
    documents = json.loads(out)
    assert [document["file"] for document in documents] == ["ink.safetensors"] * 2
    assert documents[0]["tensors"]["used"] == 388
    assert documents[0]["hashes"]["autov3"]
    assert len(documents[0]["modules"]) == 129


def test_a_bad_file_does_not_hide_the_others(loom: Loom, lora: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"<html></html>")
    status, out, err = loom("inspect", tmp_path / "bad.safetensors", tmp_path / "none.safetensors", lora, "--json")
    assert status == 1
    assert [document["file"] for document in json.loads(out)] == ["ink.safetensors"]
    assert err.splitlines() == [
        "loom: bad.safetensors: a web page, not safetensors. The download failed: get the file again.",
        f"loom: {tmp_path / 'none.safetensors'}: there is no such file. Check the path.",
    ]


def test_inspect_for_a_given_architecture(loom: Loom, lora: Path) -> None:
    status, _, err = loom("inspect", lora, "--architecture", "sdxl")
    assert status == 1
    assert one_line(err)
    assert "made for Loom Demo, the model is SDXL" in err


def test_check_names_what_is_broken(loom: Loom, tmp_path: Path) -> None:
    tensors = small_models.lora_tensors(only="attn1")
    names = sorted(key.removesuffix(".lora_up.weight") for key in tensors if key.endswith(".lora_up.weight"))
    tensors[f"{names[0]}.lora_up.weight"][0, 0] = torch.nan
    tensors[f"{names[1]}.lora_down.weight"][0, :2] = torch.inf
    tensors[f"{names[2]}.lora_up.weight"].zero_()
    tensors[f"{names[3]}.lora_down.weight"][0, 0] = 20_000
    tensors["left.over"] = torch.tensor([torch.nan])
    save_file(tensors, tmp_path / "ink.safetensors")

    status, out, err = loom("inspect", tmp_path / "ink.safetensors", "--check", "--json")

    assert status == 1
    assert one_line(err)
    assert "NaN or infinite" in err
    check = json.loads(out)[0]["check"]
    broken = {one["key"]: (one["nan"], one["infinite"]) for one in check["not_finite"]}
    assert broken == {f"{names[0]}.lora_up.weight": (1, 0), f"{names[1]}.lora_down.weight": (0, 2), "left.over": (1, 0)}
    assert check["zero"] == [f"{names[2]}.lora_up.weight"]
    assert check["unchanged"] == [{"module": names[2], "zero": [f"{names[2]}.lora_up.weight"]}]
    assert check["huge"] == [{"key": f"{names[3]}.lora_down.weight", "largest": 20_000.0}]
    assert check["tensors"] == len(tensors)

    status, out, err = loom("inspect", tmp_path / "ink.safetensors", "--check")
    assert status == 1
    assert f"{names[1]}.lora_down.weight: 0 NaN and 2 infinite of" in out
    assert f"1 modules change nothing (such as: {names[2]}.lora_up.weight is all zeros)" in out


def test_check_of_a_sound_file(loom: Loom, lora: Path) -> None:
    status, out, err = loom("inspect", lora, "--check")
    assert (status, err) == (0, "")
    assert "all of finite numbers" in out
    assert "check" not in json.loads(loom("inspect", lora, "--json").out)[0]


def test_inspect_reads_pickles_and_folders(loom: Loom, tmp_path: Path) -> None:
    checkpoint = {"state_dict": small_models.lora_tensors(only="attn1"), "optimizer": [1], "epoch": 3}
    torch.save(checkpoint, tmp_path / "ink.ckpt")
    (tmp_path / "folder").mkdir()
    save_file(small_models.lora_tensors(only="attn1"), tmp_path / "folder" / "adapter_model.safetensors")
    status, out, err = loom("inspect", tmp_path / "ink.ckpt", tmp_path / "folder", "--check", "--json")
    assert (status, err) == (0, "")
    pickle, folder = json.loads(out)
    assert pickle["tensors"] == folder["tensors"]
    assert pickle["metadata"] == {"epoch": "3"}
    assert pickle["notes"] == ["optimizer holds no tensor of a LoRA, so it is left out"]
    assert pickle["hashes"]["autov3"] is None
    assert folder["file"] == "folder/adapter_model.safetensors"
    assert folder["hashes"]["autov3"]


def test_inspect_shows_notes_to_people_too(loom: Loom, tmp_path: Path) -> None:
    torch.save(small_models.lora_tensors(only="attn1") | {"optimizer": [1]}, tmp_path / "ink.pt")
    status, out, _ = loom("inspect", tmp_path / "ink.pt")
    assert status == 0
    assert "optimizer holds no tensor of a LoRA, so it is left out" in " ".join(out.split())


def test_inspect_of_a_folder_is_a_line_a_file(loom: Loom, lora: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    lora.rename(tmp_path / "sub" / "ink.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"<html></html>")
    status, out, err = loom("inspect", tmp_path)
    assert status == 1
    assert err == "loom: bad.safetensors: a web page, not safetensors. The download failed: get the file again.\n"
    assert f"{tmp_path.name}: 1 of 2 files" in out
    assert "sub/ink.safetensors" in out
    assert "loom_demo, lora rank 4, kohya" in out
    assert "trigger: [bold]ink[/bold]" in out

    status, out, _ = loom("inspect", tmp_path, "--json")
    assert status == 1
    assert [entry["path"] for entry in json.loads(out)] == ["bad.safetensors", "sub/ink.safetensors"]
    assert "error" in json.loads(out)[0]


def test_inspect_of_an_empty_folder_says_so(loom: Loom, tmp_path: Path) -> None:
    status, out, err = loom("inspect", tmp_path)
    assert (status, out) == (1, "")
    assert one_line(err)
    assert "no LoRA file in this folder" in err


def test_inspect_of_a_folder_checks_each_file(loom: Loom, lora: Path, tmp_path: Path) -> None:
    """What headers do not say is not left out in silence."""
    (tmp_path / "sub").mkdir()
    lora.rename(tmp_path / "sub" / "ink.safetensors")
    tensors = small_models.lora_tensors(only="attn1")
    broken = next(key for key in tensors if key.endswith("lora_up.weight"))
    tensors[broken] = tensors[broken] * float("nan")
    save_file(tensors, tmp_path / "bad.safetensors")
    status, out, err = loom("inspect", tmp_path, "--check")
    assert status == 1
    assert err.startswith(f"loom: bad.safetensors: {broken}: ")
    assert "all of finite numbers" in out  # of the other file

    status, out, _ = loom("inspect", tmp_path / "sub", "--modules", "--json")
    (document,) = json.loads(out)
    assert status == 0
    assert len(document["modules"]) == 129


def test_inspect_of_a_folder_without_loras(loom: Loom, tmp_path: Path) -> None:
    for more in ((), ("--check",)):
        status, _, err = loom("inspect", tmp_path, *more)
        assert (status, err) == (1, f"loom: {tmp_path.name}: there is no LoRA file in this folder. Check the path.\n")


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


def process(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lora_core", *map(str, arguments)]
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        command,
        cwd=root,
        env=os.environ | environment,
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
    running = process(*arguments)
    # Opening a pipe for writing without waiting works as soon as somebody reads, so the command is at it.
    for _ in range(600):
        try:
            writer = os.open(tmp_path / "base.safetensors", os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError:
            time.sleep(0.1)
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    os.close(writer)
    assert (running.returncode, out, err) == (130, "", "loom: stopped; nothing was left half-written\n")


def test_help_lists_only_what_works() -> None:
    out, err = process("--help").communicate(timeout=60)
    assert "inspect" in out
    assert "merge-to-checkpoint" in out
    assert "convert" in out
    assert not any(f"\n  {name}" in out for name in ("train", "resize", "extract"))
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
    ],
)
def test_completion_knows_the_tables(words: str, wanted: list[str]) -> None:
    count = len(words.split()) - 1
    environment = {"_LOOM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    out, _ = process(**environment).communicate(timeout=60)
    assert sorted(out.split()) == wanted


def test_completion_can_be_installed(tmp_path: Path) -> None:
    """Into a home of its own; typer finds the shell by looking at the parent process, so it is told here."""
    home = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    out, _ = process("--install-completion", "bash", **home).communicate(timeout=60)
    assert "completion installed" in out
    assert any("_LOOM_COMPLETE" in path.read_text() for path in tmp_path.rglob("*.sh"))


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_a_missing_package_is_one_line(package: str) -> None:
    code = (
        "import sys; from importlib.abc import MetaPathFinder\n"
        "class Hide(MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {package!r}: raise ModuleNotFoundError(name, name={package!r})\n"
        "sys.meta_path.insert(0, Hide())\n"
        "from lora_core.cli import main; sys.exit(main(['inspect', 'x']))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    wanted = (
        f"loom: the command line needs the package '{package}'. "
        'Run `pip install ".[cli]"` in the folder of your clone of LoRA Loom.\n'
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", wanted)


def test_a_reader_that_has_seen_enough_is_no_error(lora: Path) -> None:
    running = process("inspect", lora, "--json", "--modules")
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    assert running.stderr.read() == ""
    assert running.wait(60) == 1


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
