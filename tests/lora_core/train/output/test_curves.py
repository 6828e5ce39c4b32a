"""Curves and samples of a run as files, also of a run that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lora_core.train.config import OutputSection
from lora_core.train.events import Progress, Sampled
from lora_core.train.output import FileWatcher, RunFolder
from lora_core.train.output.curves import read_rows
from lora_core.train.output.pictures import samples_of
from lora_core.train.output.plotting import running_mean


def progress(first: int, last: int) -> Progress:
    losses = [(step, 1 / step) for step in range(first, last + 1)]
    return Progress(last, 40, 1 / last, losses, {"denoiser": 1e-4, "text_encoder": 1e-5}, 2.0, 10.0, 1 << 20)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, "cat")


def watched(folder: RunFolder, *spans: tuple[int, int], start: int = 0) -> None:
    watcher = FileWatcher(folder, OutputSection(), start)
    for first, last in spans:
        watcher.progress(progress(first, last))
        watcher.validated(last, {"validation": 1 / last, "validation t=200": 2 / last, "leakage": 0.1})
    watcher.close()


def board(folder: RunFolder, tag: str) -> dict[int, float]:
    """What TensorBoard shows of a curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder.logs))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(tag)}


def test_every_step_is_a_row(folder: RunFolder):
    watched(folder, (1, 10), (11, 20))

    rows = read_rows(folder.csv)
    assert [(step, value) for step, name, value in rows if name == "loss"] == [(n, 1 / n) for n in range(1, 21)]
    assert [(step, value) for step, name, value in rows if name == "rate denoiser"] == [(10, 1e-4), (20, 1e-4)]
    assert folder.csv.read_text(encoding="utf-8").startswith("step,name,value\n1,loss,1.0\n")


def test_tensorboard_has_the_same(folder: RunFolder):
    watched(folder, (1, 10))

    assert board(folder, "loss") == pytest.approx({n: 1 / n for n in range(1, 11)}, rel=1e-6)  # it keeps float32
    assert board(folder, "validation/t=200") == pytest.approx({10: 0.2}, rel=1e-6)
    assert board(folder, "rate/text_encoder") == pytest.approx({10: 1e-5}, rel=1e-6)


def test_a_run_that_goes_on_continues_its_curves_as_if_it_had_never_stopped(folder: RunFolder, tmp_path: Path):
    """The state is of step 10, and five steps more were written before the kill."""
    watched(folder, (1, 10), (11, 15))
    watched(folder, (11, 20), start=10)
    whole = RunFolder(tmp_path, "whole")
    watched(whole, (1, 10), (11, 20))

    assert folder.csv.read_text(encoding="utf-8") == whole.csv.read_text(encoding="utf-8")
    assert board(folder, "loss") == board(whole, "loss")


def test_a_line_that_a_kill_cut_off_is_left_out(folder: RunFolder):
    watched(folder, (1, 10))
    with folder.csv.open("a", encoding="utf-8") as file:
        file.write("11,loss,0.0")

    watched(folder, start=20)

    assert max(step for step, _, _ in read_rows(folder.csv)) == 10


def test_a_new_run_starts_new_curves(folder: RunFolder):
    watched(folder, (1, 20))
    watched(folder, (1, 10))

    assert max(step for step, _, _ in read_rows(folder.csv)) == 10
    assert max(board(folder, "loss")) == 10


def test_the_plot_has_a_panel_for_each_kind_of_curve(folder: RunFolder):
    watched(folder, (1, 10), (11, 20))

    with Image.open(folder.plot) as picture:
        assert picture.width == 990
        assert picture.height > 900  # loss, validation, leakage, learning rates
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_a_plot_of_a_loss_alone(folder: RunFolder):
    watcher = FileWatcher(folder, OutputSection(tensorboard=False))
    watcher.progress(Progress(3, 40, 1.0, [(1, 1.0), (2, float("nan")), (3, 0.5)], {}, 1.0, 1.0, 0))
    watcher.close()

    with Image.open(folder.plot) as picture:
        assert picture.height < 500
    assert not folder.logs.exists()


def test_numbers_of_other_kinds_are_in_the_table_and_not_in_the_plot(tmp_path: Path):
    """The norm of the gradient would be taken for a loss on pictures held out."""
    pictures: list[bytes] = []
    for name, extra in (("with", {"gradient": 0.5}), ("without", {})):
        of = RunFolder(tmp_path / name, "cat")
        watcher = FileWatcher(of, OutputSection(tensorboard=False))
        watcher.progress(Progress(2, 40, 1.0, [(1, 1.0), (2, 0.5)], {"denoiser": 1e-4}, 1.0, 1.0, 0, extra))
        watcher.validated(2, {"validation": 0.4})
        watcher.close()
        assert any(row[1] == "gradient" for row in read_rows(of.csv)) == (name == "with")
        pictures.append(of.plot.read_bytes())

    assert pictures[0] == pictures[1]


def test_nothing_that_is_not_wanted(folder: RunFolder):
    watcher = FileWatcher(folder, OutputSection(tensorboard=False, plot=False))
    watcher.progress(progress(1, 10))
    watcher.close()

    assert sorted(path.name for path in folder.run.iterdir()) == ["loss.csv", "samples"]


def test_the_mean_leaves_out_what_is_not_finite():
    nan = float("nan")

    assert running_mean([1.0, nan, 3.0, 5.0], 2) == [1.0, 1.0, 3.0, 4.0]
    assert running_mean([nan, 2.0], 1)[1] == 2.0


def test_samples_are_pictures_on_disk_and_in_tensorboard(folder: RunFolder):
    watcher = FileWatcher(folder, OutputSection())
    watcher.sampled(Sampled(500, ["a cat"], [Image.new("RGB", (64, 48), "red")]))
    watcher.close()

    with Image.open(folder.sample(500, 0)) as picture:
        assert picture.getpixel((5, 5)) == (255, 0, 0)
        assert picture.info["prompt"] == "a cat"
    assert any(folder.logs.iterdir())


def sampled(watcher: FileWatcher, *steps: int) -> None:
    for step in steps:
        watcher.sampled(Sampled(step, ["a cat"], [Image.new("RGB", (64, 48), "red")]))
    watcher.close()


def test_a_new_run_has_no_samples_of_an_older_one(folder: RunFolder):
    """They would be rows of its sheet, and the thumbnail of a run that draws none."""
    sampled(FileWatcher(folder, OutputSection(tensorboard=False)), 10, 20)

    FileWatcher(folder, OutputSection(tensorboard=False)).close()

    assert samples_of(folder) == {}
    assert list(folder.samples.iterdir()) == []


def test_a_run_that_goes_on_keeps_the_samples_up_to_its_state(folder: RunFolder):
    sampled(FileWatcher(folder, OutputSection(tensorboard=False)), 10, 20)

    FileWatcher(folder, OutputSection(tensorboard=False), start=10).close()

    assert list(samples_of(folder)) == [10]
