from __future__ import annotations

from pathlib import Path
from zlib import crc32

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lora_core.train.history import bare, history, prompt_of, read_curves, run_folders, summary

CONFIG = """preset = "sd15-style"
[data]
folder = "/home/me/pictures"
[run]
steps = 4
[output]
folder = 'C:\\Users\\me\\loras'
"""


# A PNG that claims 100,000 pixels a side.
_HEAD = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
HUGE = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + _HEAD + crc32(_HEAD).to_bytes(4, "big") + b"\0\0\0\1IDATx"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A finished run with pictures, and one in a folder of which only the curve is there."""
    ink = tmp_path / "ink.run"
    (ink / "samples").mkdir(parents=True)
    (ink / "state" / "step-000004").mkdir(parents=True)
    (ink / "config.toml").write_text(CONFIG)
    rows = [f"{step},loss,{1 / step}\n{step},rate denoiser,0.0001\n{step},gradient,1.0\n" for step in range(1, 5)]
    rows += ["2,validation,0.5\n", "2,validation t=200,0.4\n", "3,loss,nan\n"]
    (ink / "loss.csv").write_text("step,name,value\n" + "".join(rows))
    for step in (2, 4):
        for number, prompt in enumerate(("a lighthouse", "ein Löwe")):
            text = PngInfo()
            text.add_itxt("prompt", prompt)
            Image.new("RGB", (8, 8)).save(ink / "samples" / f"ink-{step:06}-{number}.png", pnginfo=text)
    Image.new("RGB", (8, 8)).save(ink / "samples" / "ink.png")
    bare_run = tmp_path / "styles" / "new.run"
    bare_run.mkdir(parents=True)
    (bare_run / "loss.csv").write_text("step,name,value\n1,loss,0.5\n2,loss,0.")
    return tmp_path


def test_runs_go_by_their_names(runs: Path):
    assert list(run_folders(runs)) == ["ink", "styles/new"]
    assert run_folders(runs / "nowhere") == {}


def test_there_is_an_end_to_runs_wherever_they_lie(runs: Path, monkeypatch: pytest.MonkeyPatch):
    (runs / "a" / "x.run" / "samples").mkdir(parents=True)
    monkeypatch.setattr("lora_core.train.history._MOST", 1)
    assert list(run_folders(runs)) == ["a/x"]


def test_a_list_says_where_a_run_is(runs: Path):
    one = summary(runs / "ink.run", "ink")

    assert (one.run, one.step, one.steps, one.finished, one.samples, one.fault) == ("ink", 4, 4, True, 2, "")
    assert one.loss == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert one.preview == runs / "ink.run" / "samples" / "ink-000004-0.png"
    assert one.modified > 0


def test_all_of_a_run(runs: Path):
    found = history(runs / "ink.run", "ink")

    assert found.losses == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25)]
    assert found.validation == [(2, 0.5)]
    assert found.rates == {"denoiser": [(step, 1e-4) for step in range(1, 5)]}
    assert {step: list(pictures) for step, pictures in found.samples.items()} == {2: [0, 1], 4: [0, 1]}
    assert prompt_of(found.samples[2][1]) == "ein Löwe"


def test_no_path_of_the_machine_is_told(runs: Path):
    config = history(runs / "ink.run", "ink").config

    assert (config["data"]["folder"], config["output"]["folder"]) == ("pictures", "loras")
    assert bare(["~/x/y", "a/b", "10 / 3", 1.5, float("inf"), True]) == ["y", "a/b", "10 / 3", 1.5, None, True]


def test_a_run_that_has_hardly_begun(runs: Path):
    one = summary(runs / "styles" / "new.run", "styles/new")

    assert (one.step, one.steps, one.finished, one.loss, one.preview) == (1, 0, False, 0.5, None)
    assert one.fault == "config.toml is not there"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("config.toml", b"[run\nsteps = ", "config.toml cannot be read"),
        ("config.toml", b"\xff\xfe\x00", "config.toml cannot be read"),
        ("config.toml", b'run = 3\nsamples = "x"', ""),
        ("config.toml", b'[run]\nsteps = "many"', ""),
        ("loss.csv", b"\x00\xff,,,\n1,loss\nx,loss,1\n1,loss,inf\n", ""),
        ("samples/ink-000006-0.png", b"no picture", ""),
        ("samples/ink-000006-0.png", HUGE, ""),
    ],
)
def test_damage_is_told_or_left_out(runs: Path, name: str, content: bytes, fault: str):
    (runs / "ink.run" / name).write_bytes(content)

    found = history(runs / "ink.run", "ink")

    assert found.summary.fault == fault
    assert all(
        prompt_of(path) in ("", "a lighthouse", "ein Löwe") for one in found.samples.values() for path in one.values()
    )


def test_of_a_long_curve_the_end_is_enough_for_the_list(runs: Path):
    rows = "".join(f"{step},loss,{step}.0\n{step},rate denoiser,0.0001\n" for step in range(1, 3001))
    (runs / "ink.run" / "loss.csv").write_text("step,name,value\n" + rows)

    assert summary(runs / "ink.run", "ink").loss == pytest.approx(2990.5)
    assert len(history(runs / "ink.run", "ink").losses) <= 2000
    assert len(read_curves(runs / "ink.run" / "loss.csv")["loss"]) == 3000


def test_a_folder_that_is_no_run_is_left_out(tmp_path: Path):
    (tmp_path / "empty.run").mkdir()
    (tmp_path / ".run").mkdir()
    (tmp_path / "file.run").write_text("")

    assert run_folders(tmp_path) == {}
