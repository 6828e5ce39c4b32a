"""`loom demo`: what it says of its results, and where there is nothing to run. `nox -s demo` runs it whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demo.prove import report
from lora_core.cli import demo, main


def results(**checks: bool) -> dict[str, Any]:
    losses = {name: {"mean": 0.5} for name in ("base", "style", "content", "stack")}
    return {"checks": checks, "losses": {"style": losses}}


def test_each_check_is_a_line_with_yes_or_no() -> None:
    said: list[str] = []

    assert not report(results(**{"merged is the live stack": True, "strength 0 is the base": False}), said.append)

    assert said[1].split() == ["style", *["0.5000"] * 4]
    assert said[2:] == ["yes merged is the live stack", "NO  strength 0 is the base"]


def test_without_the_repository_it_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "ROOT", tmp_path)

    assert main(["demo", "--output", str(tmp_path / "out")]) == 1

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("loom: loom demo: ")
    assert "clone the repository" in said
    assert not (tmp_path / "out").exists()
