"""``loom train`` as a user meets it: what is on which stream, what ends it, and what goes on."""

from __future__ import annotations

import io
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from command_line import Loom, one_line
from lora_core.cli.train_terminal import SAME_SIGNAL, Interrupt, TerminalWatcher, duration, memory
from lora_core.cli.training import complete_preset, complete_setting
from lora_core.train.config import PRESETS, TrainConfig, load_config
from lora_core.train.events import Progress, Sampled, Watcher

Engine = Callable[..., Any]


def progress(step: int, **changes: Any) -> Progress:
    numbers: dict[str, Any] = {
        "steps": 20,
        "loss": 0.125,
        "losses": [(step, 0.125)],
        "rates": {"denoiser": 1e-4},
        "steps_per_second": 2.5,
        "seconds_left": 65.0,
        "memory": 3 * 2**30,
    }
    return Progress(step=step, **numbers | changes)


def result(config: TrainConfig, step: int) -> Any:
    return SimpleNamespace(
        path=Path(config.output.folder) / f"{config.output.name}.safetensors",
        name=config.output.name,
        steps=step,
        finished=step == config.run.steps,
        loss=0.125,
        report={"seconds": 1.5, "curves": [1, 2]},
    )


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Engine], None]:
    """Puts a function in the place of the engine: what the command does around it needs no training."""

    def use(train: Engine) -> None:
        module = ModuleType("lora_core.train.loop")
        module.train = train  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "lora_core.train.loop", module)

    return use


def whole(config: TrainConfig, *, watcher: Watcher, resume: str) -> Any:
    """An engine that reports a run of two looks at the loss."""
    watcher.stage("caching latents", 0, 4)
    watcher.stage("caching latents", 4, 4)
    watcher.warned("a picture is\nsmall [bold]")
    watcher.progress(progress(10))
    watcher.validated(10, {"validation": 0.5, "train": 0.25})
    watcher.sampled(Sampled(10, ["a cat"], [Image.new("RGB", (8, 8))]))
    watcher.saved(Path("loras/ink-000010.safetensors"), 10)
    watcher.progress(progress(20, seconds_left=0.0))
    assert not watcher.cancelled()
    return result(config, config.run.steps)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "run.toml"
    file.write_text('[model]\nbase = "a/b"\n[data]\nfolder = "p"\n[run]\nsteps = 20\n[output]\nname = "ink"\n')
    return file


def test_a_run_speaks_in_lines_where_nobody_sees_a_bar(loom: Loom, engine: Any, settings: Path):
    engine(whole)

    status, out, err = loom("train", settings)

    assert status == 0
    assert err.splitlines() == [
        "alpha 16 / rank 16: the change is scaled by 1; with half the alpha, learning rate 0.0001 would act as 5e-05",
        "caching latents (4)",
        "warning: a picture is small [bold]",
        "step 10/20  loss 0.1250  2.50 it/s  memory 3.0 GiB  left 1:05  rate 0.0001 (denoiser)",
        "step 10: validation 0.5000, train 0.2500",
        "step 10: 1 sample",
        "step 10: saved loras/ink-000010.safetensors",
        "step 20/20  loss 0.1250  2.50 it/s  memory 3.0 GiB  left 0:00  rate 0.0001 (denoiser)",
    ]
    assert str(settings.parent / "loras/ink.safetensors") in out
    assert "0.1250" in out


def test_a_run_for_programs(loom: Loom, engine: Any, settings: Path):
    engine(whole)

    status, out, _ = loom("train", settings, "--json")

    assert status == 0
    assert json.loads(out) == {
        "path": str(settings.parent / "loras/ink.safetensors"),
        "name": "ink",
        "steps": 20,
        "finished": True,
        "loss": 0.125,
        "report": {"seconds": 1.5, "curves": [1, 2]},
    }


def test_settings_of_the_command_line_win(loom: Loom, engine: Any, settings: Path):
    seen: list[TrainConfig] = []

    def keep(config: TrainConfig, **_: Any) -> Any:
        seen.append(config)
        return result(config, config.run.steps)

    engine(keep)

    assert loom("train", settings, "--set", "network.rank=8", "--set", "output.name=rain").status == 0
    assert loom("train", "--set", "preset=pivotal", "--set", "model.base=a/b", "--set", "data.folder=p").status == 0
    assert (seen[0].network.rank, seen[0].output.name, seen[0].run.steps) == (8, "rain", 20)
    assert seen[1].tokens.names == ("<s1>", "<s2>"), "a file is not needed"


@pytest.mark.parametrize(("option", "resume"), [([], "auto"), (["--resume"], "must"), (["--fresh"], "never")])
def test_the_same_command_goes_on_unless_told_otherwise(
    loom: Loom, engine: Any, settings: Path, option: list[str], resume: str
):
    seen: list[str] = []
    engine(lambda config, watcher, resume: [seen.append(resume), result(config, 20)][1])

    assert loom("train", settings, *option).status == 0
    assert seen == [resume]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_and_the_run_says_what_is_kept(loom: Loom, engine: Any, settings: Path, number: signal.Signals):
    def until_asked(config: TrainConfig, *, watcher: Watcher, resume: str) -> Any:
        assert not watcher.cancelled()
        signal.raise_signal(number)
        assert watcher.cancelled()
        return result(config, 7)

    engine(until_asked)
    before = signal.getsignal(signal.SIGINT)

    status, out, err = loom("train", settings)

    assert (status, out) == (130, "")
    assert err.splitlines()[-1] == (
        f"loom: stopped at step 7 of 20; saved {settings.parent / 'loras/ink.safetensors'} and the state; "
        "the same command goes on from there"
    )
    assert signal.getsignal(signal.SIGINT) is before


def test_of_several_processes_one_says_that_it_stopped(
    loom: Loom, engine: Any, settings: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RANK", "1")
    engine(lambda config, watcher, resume: result(config, 7))

    assert loom("train", settings) == (130, "", "")


def test_an_interrupted_run_for_programs(loom: Loom, engine: Any, settings: Path):
    engine(lambda config, watcher, resume: result(config, 7))

    status, out, _ = loom("train", settings, "--json")

    assert status == 130
    assert (json.loads(out)["finished"], json.loads(out)["steps"]) == (False, 7)


def test_a_second_interrupt_ends_at_once(loom: Loom, engine: Any, settings: Path):
    def deaf(config: TrainConfig, *, watcher: Watcher, resume: str) -> Any:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # a launcher hands on what the terminal has sent already
        signal.raise_signal(signal.SIGTERM)
        time.sleep(SAME_SIGNAL * 1.1)
        signal.raise_signal(signal.SIGTERM)  # polite as often as it comes
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("goes on")

    engine(deaf)

    status, _, err = loom("train", settings)

    assert status == 130
    assert err.splitlines()[-1] == "loom: stopped; nothing was left half-written"


def test_other_processes_of_a_launch_are_silent(
    loom: Loom, engine: Any, settings: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RANK", "1")
    engine(whole)

    assert loom("train", settings) == (0, "", "")


FAULTS: dict[str, tuple[list[str], int, str]] = {
    "nothing": ([], 2, "give a file of settings; `loom train --init PRESET FILE` writes one"),
    "no such file": (["none.toml"], 1, "none.toml: there is no such file"),
    "both": (["run.toml", "--resume", "--fresh"], 2, "--resume, --fresh, --presets and --init exclude each other"),
    "two faults": (
        ["run.toml", "--set", "network.rank=0", "--set", "run.steps=0"],
        1,
        "run.toml: network.rank: expected at least 1, got 0; run.steps: expected at least 1, got 0",
    ),
    "no such setting": (["run.toml", "--set", "network.rnak=3"], 1, "did you mean network.rank?"),
    "no value": (["run.toml", "--set", "network.rank"], 1, "expected key=value, such as network.rank=8"),
    "no such preset": (["--init", "sdxl"], 1, "no preset named 'sdxl': did you mean 'sdxl-"),
    "a file is there": (["--init", "paper", "run.toml"], 1, "run.toml: is there already. Choose another name"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_one_line(loom: Loom, settings: Path, monkeypatch: pytest.MonkeyPatch, case: str):
    arguments, wanted, message = FAULTS[case]
    monkeypatch.chdir(settings.parent)
    text = settings.read_text()

    status, out, err = loom("train", *arguments)

    assert (status, out) == (wanted, "")
    assert one_line(err)
    assert message in err
    assert settings.read_text() == text


@pytest.mark.parametrize("package", ["pydantic", "diffusers"])
def test_a_missing_package_is_one_line(loom: Loom, engine: Any, settings: Path, package: str):
    def lacking(*_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError(f"No module named '{package}.x'", name=f"{package}.x")

    engine(lacking)

    status, _, err = loom("train", settings)

    assert status == 1
    assert err.splitlines()[-1] == (
        f"loom: training needs the package '{package}'. "
        'Run `pip install ".[train]"` in the folder of your clone of LoRA Loom.'
    )


def test_a_bug_is_no_missing_package(loom: Loom, engine: Any, settings: Path):
    def wrong(*_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError("No module named 'lora_core.nowhere'", name="lora_core.nowhere")

    engine(wrong)
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        loom("train", settings)


def test_presets_are_listed(loom: Loom):
    status, out, err = loom("train", "--presets")
    assert (status, err) == (0, "")
    assert all(name in out and preset.title in out for name, preset in PRESETS.items())

    document = json.loads(loom("train", "--presets", "--json").out)
    assert list(document) == list(PRESETS)
    assert document["sdxl-style"]["network"]["rank"] == 32


def test_a_starting_file_is_written_or_printed(loom: Loom, tmp_path: Path):
    sets = ["--set", "model.base=a/b", "--set", "data.folder=p"]
    status, out, err = loom("train", "--init", "sdxl-subject", tmp_path / "run.toml", *sets)

    assert (status, out) == (0, "")
    assert "Alpha 8 / rank 16: the change is scaled by 0.5" in err
    assert err.splitlines()[-1] == f"{tmp_path / 'run.toml'}: now `loom train {tmp_path / 'run.toml'}`"
    assert load_config(tmp_path / "run.toml").preset == "sdxl-subject"
    assert loom("train", "--init", "sdxl-subject", *sets).out == (tmp_path / "run.toml").read_text()

    _, _, err = loom("train", "--init", "paper", tmp_path / "other.toml")
    assert err.splitlines()[-1].startswith(f"{tmp_path / 'other.toml'}: give model.base and data.folder, then `loom")


def test_completion_knows_settings_and_their_words():
    assert complete_setting("network.ra") == ["network.rank=", "network.rank_dropout="]
    assert complete_setting("objective.weighting=m") == ["objective.weighting=min_snr"]
    assert complete_setting("run.compile=") == ["run.compile=true", "run.compile=false"]
    assert "preset=paper" in complete_setting("preset=")
    assert complete_setting("no.such=") == []
    assert complete_preset("sdxl-s") == ["sdxl-style", "sdxl-subject"]


def test_a_terminal_has_bars():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=200, color_system=None)
    watcher = TerminalWatcher(Interrupt(), console)
    with watcher.showing():
        watcher.stage("caching [latents]", 1, 4)
        watcher.stage("caching [latents]", 4, 4)
        watcher.progress(progress(10))
        watcher.warned("small")
    shown = stream.getvalue()

    assert "caching [latents]" in shown
    assert "10/20" in shown
    assert "loss 0.1250  2.50 it/s  memory 3.0 GiB  left 1:05" in shown
    assert "warning: small" in shown
    assert "caching" not in shown[shown.rindex("training") :], "a stage that is done is gone"


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [(0, "0:00"), (59.6, "1:00"), (3725, "1:02:05"), (float("inf"), "?"), (float("nan"), "?"), (-1, "?")],
)
def test_durations(seconds: float, wanted: str):
    assert duration(seconds) == wanted


def test_memory():
    assert memory(int(5.25 * 2**30)) == "5.2 GiB"
