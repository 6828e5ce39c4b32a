"""What of an earlier demo is gone on with, and the picture of the losses. Training and measuring are left out here."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demo import prove
from demo.train_loras import NAMES, settings
from lora_core.train.events import Watcher
from lora_core.train.loop import TrainResult
from lora_core.train.output import RunFolder

Calls = list[tuple[str, bool]]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Calls]:
    """Stand-ins that finish all but one LoRA; they note (name, whether anew)."""

    def stand_in(stopped: str) -> Calls:
        calls: Calls = []

        def train_lora(name: str, folder: Path, watcher: Watcher, *, fresh: bool = False) -> TrainResult:
            calls.append((name, fresh))
            return TrainResult(None, name, 600, name != stopped, math.nan, {"steps_per_second": 4.0})

        def measure(loras: Path, out: Path, more: Any) -> Any:
            (out / prove.RESULTS).write_text("{}", encoding="utf-8")
            return more

        monkeypatch.setattr(prove, "train_lora", train_lora)
        monkeypatch.setattr(prove, "measure", measure)
        monkeypatch.setattr(prove, "plot_losses", lambda out: None)
        return calls

    return stand_in


def test_a_stopped_demo_goes_on_and_a_finished_one_begins_anew(tmp_path: Path, trained: Callable[[str], Calls]) -> None:
    calls = trained("content")
    assert prove.prove(tmp_path, print) is None
    assert calls == [("style", False), ("content", False)]
    assert not (tmp_path / prove.RESULTS).exists()

    calls = trained("")
    assert prove.prove(tmp_path, print) == {"steps a second": {"style": 4.0, "content": 4.0}}
    assert calls == [("style", False), ("content", False)]

    calls = trained("style")
    assert prove.prove(tmp_path, print) is None
    assert calls == [("style", True)]
    # What is left of the old one is not taken for a result of the new one.
    assert not (tmp_path / prove.RESULTS).exists()


def test_the_picture_of_the_losses_has_both_runs_with_what_was_held_out(tmp_path: Path) -> None:
    for name in NAMES:
        folder = RunFolder(tmp_path, settings(name, tmp_path).output.name).make()
        rows = ["step,name,value", "0,validation,0.7", *(f"{step},loss,{1 / step}" for step in range(1, 41))]
        folder.csv.write_text("\n".join([*rows, "40,validation,0.3", "40,gradient,9.0", ""]), encoding="utf-8")

    prove.plot_losses(tmp_path)

    with Image.open(tmp_path / prove.LOSSES) as picture:
        seen = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert {(31, 119, 180), (255, 127, 14)} <= seen
