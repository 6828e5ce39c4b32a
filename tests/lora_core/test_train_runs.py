"""``loom train`` for real, on the demo's model: faults, streams, interrupts, and going on."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import running
from command_line import Loom, one_line
from painted import paint_some

ROOT = Path(__file__).parents[2]
BASE = ROOT / "demo" / "model"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def sets(**settings: object) -> list[str]:
    """``run__steps=4`` -> ``--set run.steps=4``; a short run on the demo's model where nothing else is said."""
    values = {
        "preset": "loom_demo-style",
        "model__base": BASE,
        "run__steps": 4,
        "run__batch": 1,
        "run__log_every": 2,
        "run__device": "cpu",
        **settings,
    }
    return [word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with two captioned pictures in `pictures`."""
    paint_some(tmp_path / "pictures", 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def no_captions(here: Path) -> None:
    for file in here.glob("pictures/*.txt"):
        file.unlink()


def no_picture(here: Path) -> None:
    (here / "pictures" / "p0.png").write_bytes(b"hello")


def no_pictures(here: Path) -> None:
    (here / "empty").mkdir()


def a_file(here: Path) -> None:
    (here / "file").touch()


def not_toml(here: Path) -> None:
    (here / "run.toml").write_text("[model\nbase = 1")


def misspelt(here: Path) -> None:
    (here / "run.toml").write_text('[modle]\n[data]\nfolder = "pictures"\n[network]\nrnak = 3\n')


def nothing(here: Path) -> None:
    """All is there."""


PICTURES = sets(data__folder="pictures")
FAULTS: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "no file": (nothing, ["none.toml"], "none.toml: there is no such file"),
    "not TOML": (not_toml, ["run.toml"], r"run.toml: not TOML: .* \(at line 1"),
    "misspelt": (
        misspelt,
        ["run.toml"],
        "network.rnak: no such setting; did you mean network.rank.*mean model",
    ),
    "too little": (nothing, ["--set", "network.rank=4"], "data.folder: is missing.*model.base: is missing"),
    "no base": (nothing, [*PICTURES, "--set", "model.base=nowhere"], "model.base: there is no .* 'nowhere'"),
    "base is a picture": (nothing, [*PICTURES, "--set", "model.base=pictures/p0.png"], "p0.png"),
    "base is no pipeline": (nothing, [*PICTURES, "--set", "model.base=pictures"], "pictures has no model_index.json"),
    "no folder": (nothing, sets(data__folder="nowhere"), "data.folder: there is no folder '.*nowhere'"),
    "no pictures": (no_pictures, sets(data__folder="empty"), "data.folder: no pictures in '.*empty'"),
    "no captions": (
        no_captions,
        PICTURES,
        r"no caption found for 2 of 2 pictures \(p0.png, p1.png\); looked for",
    ),
    "no picture": (no_picture, PICTURES, "p0.png: cannot be read as a picture"),
    "output is a file": (a_file, [*PICTURES, "--set", "output.folder=file"], "file.*: Not a directory"),
    "no such device": (nothing, [*PICTURES, "--set", "run.device=banana"], "run.device: .*banana.*set auto or cpu"),
    "fp16": (nothing, [*PICTURES, "--set", "run.precision=fp16"], "run.precision: fp16 is for GPUs"),
    "nothing to resume": (nothing, [*PICTURES, "--resume"], "lora.run/state: there is no state .*--resume"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_one_line_and_leaves_no_lora(loom: Loom, here: Path, case: str):
    prepare, arguments, message = FAULTS[case]
    prepare(here)

    status, out, err = loom("train", *arguments)

    *before, fault = err.splitlines(keepends=True)
    assert (status, out) == (1, "")
    assert one_line(fault), err
    assert re.search(message, fault), fault
    # What is said of alpha, and that it began.
    assert all(line.startswith(("alpha ", "loading the model")) for line in before), err
    assert not list(here.rglob("lora*.safetensors"))


def test_other_settings_than_the_states_are_one_line(loom: Loom, here: Path):
    assert loom("train", *PICTURES).status == 0
    written = (here / "loras/lora.safetensors").read_bytes()

    status, _, err = loom("train", *PICTURES, "--set", "network.rank=2", "--set", "run.steps=6")

    assert status == 1
    assert one_line(err.splitlines(keepends=True)[-1])
    assert re.search(r"network\.rank was 8, is 2\..* --fresh", err)
    assert (here / "loras/lora.safetensors").read_bytes() == written
    assert loom("train", *PICTURES, "--set", "network.rank=2", "--fresh").status == 0
    assert (here / "loras/lora.safetensors").read_bytes() != written


def test_init_then_train(loom: Loom, here: Path):
    """What `--init` writes is a file that trains, from another folder too."""
    given = ["--set", f"model.base={BASE}", "--set", f"data.folder={here / 'pictures'}"]
    (here / "settings").mkdir()
    assert loom("train", "--init", "loom_demo-subject", "settings/run.toml", *given).status == 0

    status, out, _ = loom("train", "settings/run.toml", "--set", "run.steps=2", "--set", "run.batch=1")

    assert status == 0
    assert (here / "settings/loras/lora.safetensors").is_file()
    assert "lora.safetensors" in out
    assert (here / "settings/loras/lora.run/config.toml").is_file()


# A program that says at its end whether it has imported what takes long.
QUICK = """
import sys
from lora_core.cli import main

code = main(sys.argv[1:])
print("imported diffusers" if "diffusers" in sys.modules else "quick", file=sys.stderr)
sys.exit(code)
"""

# Every line of a run; anything else is noise of a library.
LINES = re.compile(
    r"alpha 8 / rank 8: .*|loading the model|modules: .*|caching (latents|text)( \(\d+\))?|"
    r"going on from step \d+ of 20|"
    r"training \(20\)|validating|step \d+: train [\d.]+|drawing samples|step \d+: 1 sample|saving|step \d+: saved \S+|"
    r"step \d+/20  loss [\d.]+  [\d.]+ it/s  memory [\d.]+ GiB  left [\d:?]+  rate \S+ \(denoiser\)|"
    r"finished already, at step 20: .*|loom: stopp.*|imported diffusers|quick|"
)


def test_a_kill_keeps_what_was_learned_and_the_same_command_finishes(here: Path):
    """With output for a program: JSON alone on standard output, lines for people on standard error."""
    more = {"run__steps": 20, "validation__every": 20, "samples__prompts": '["thing 0"]', "samples__steps": 2}
    arguments = ["train", *sets(data__folder="pictures", **more), "--json"]
    first = running.started(*arguments, out=here / "out", err=here / "err", folder=here)
    first.until(lambda: "\nstep 4/" in first.output)
    status = first.send(signal.SIGTERM)
    said = first.output.splitlines(keepends=True)

    assert status == 130, said
    stopped = json.loads((here / "out").read_text("utf-8"))
    assert (stopped["finished"], 4 <= stopped["steps"] < 20) == (False, True)
    assert Path(stopped["path"]).name == f"lora-{stopped['steps']:06}.safetensors"
    assert load_file(stopped["path"])
    assert said[-1] == (
        f"loom: stopped at step {stopped['steps']} of 20; saved {stopped['path']} and the state; the same command goes "
        "on from there\n"
    )

    again = running.loom(*arguments, folder=here)
    assert again.status == 0, again.err
    assert f"going on from step {stopped['steps']} of 20\n" in again.err
    done = json.loads(again.out)
    assert (done["finished"], done["steps"], Path(done["path"]).name) == (True, 20, "lora.safetensors")
    assert done["report"]["validation"]["train"] > 0

    third = subprocess.run(
        [sys.executable, "-c", QUICK, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=here,
        timeout=120,
    )
    assert third.returncode == 0, third.stderr
    assert json.loads(third.stdout)["report"] == done["report"]
    *_, finished, how = third.stderr.splitlines()
    assert finished.startswith("finished already, at step 20: ")
    assert how == "quick"

    lines = "".join([*said, again.err, third.stderr]).splitlines()
    assert [line for line in lines if not LINES.fullmatch(line)] == []


def test_on_a_terminal_there_are_bars_and_ctrl_c_stops(here: Path):
    import pty

    ours, theirs = pty.openpty()
    terminal = Path(os.ttyname(theirs))
    arguments = ["train", *sets(data__folder="pictures", run__steps=400)]
    wide = {"COLUMNS": "120", "TERM": "xterm"}
    started = running.started(*arguments, out=terminal, err=terminal, folder=here, environment=wide)
    seen, asked, deadline = b"", False, time.monotonic() + 120
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 0.1)[0]:
            if started.poll() is not None:  # and all that it said is read
                break
            continue
        seen += os.read(ours, 65536)
        if not asked and b" 4/400" in seen:
            asked = True
            os.kill(started.pid, signal.SIGINT)
    os.close(ours)
    os.close(theirs)

    assert started.end() == 130
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", seen.decode())  # without colours and moves
    assert re.search(r"training .*━.* 4/400 .*loss [\d.]+  [\d.]+ it/s  memory [\d.]+ GiB  left \d", text)
    assert "0/100" not in text, "a bar knows its length from the start"
    assert "loom: stopping after this step and saving; Ctrl-C once more stops without saving" in text
    assert "the same command goes on from there" in text
