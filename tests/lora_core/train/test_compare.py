"""The example that compares values of a setting: ranks, and target modules."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from examples import compare
from lora_core.errors import ConfigError

CONFIG = Path(compare.__file__).with_name("compare.toml")
# Few steps on few pictures, and nothing that takes time beside them.
SHORT = (
    *("run.steps=4", "data.select.group=Activities", "validation.select.group=Activities"),
    *("validation.timesteps=[0.5]", "validation.train_subset=2", "validation.prompts=[]"),
    *("output.plot=false", "output.tensorboard=false"),
)


def compared(folder: Path, key: str, values: Sequence[str]) -> tuple[list[compare.Row], str]:
    """The rows, and the table as text."""
    rows = compare.compare(CONFIG, key, values, [*SHORT, f"output.folder={folder}"])
    stream = io.StringIO()
    Console(file=stream, width=120).print(compare.table(key, rows))
    return rows, stream.getvalue()


def test_ranks_2_4_8_in_one_table(tmp_path: Path):
    rows, table = compared(tmp_path, "network.rank", ["2", "4", "8"])

    assert [row.value for row in rows] == ["2", "4", "8"]
    assert [row.parameters for row in rows] == [43_008, 86_016, 172_032]
    assert rows[0].bytes < rows[1].bytes < rows[2].bytes
    # The same base, pictures and noise: before training all are the same, afterwards none.
    assert len({row.before["validation"] for row in rows}) == 1
    assert all(row.after["validation"] < row.before["validation"] for row in rows)
    assert len({row.after["validation"] for row in rows}) == 3
    for row in rows:
        assert f"{row.parameters:,}" in table
        assert f"{row.after['validation']:.4f}" in table
    assert len(list(tmp_path.glob("style-rank-?.safetensors"))) == 3
    assert len(list(tmp_path.glob("*.cache"))) == 1, "latents are encoded once"

    again, _ = compared(tmp_path, "network.rank", ["2", "4", "8"])
    assert [row.after for row in again] == [row.after for row in rows], "what is finished is taken as it is"


def test_target_modules_in_one_table(tmp_path: Path):
    rows, table = compared(tmp_path, "network.targets", ["attention", "attention+ff", "all", "regex:attn2"])

    parameters = {row.value: row.parameters for row in rows}
    assert parameters["attention+ff"] == 86_016
    assert parameters["regex:attn2"] < parameters["attention"] < parameters["attention+ff"] < parameters["all"]
    assert "regex:attn2" in table
    assert (tmp_path / "style-targets-regex_attn2.safetensors").exists()


def test_a_wrong_value_is_told_before_the_first_run(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"network\.rank: expected at least 1, got 0"):
        compared(tmp_path, "network.rank", ["2", "0"])
    assert list(tmp_path.iterdir()) == []
