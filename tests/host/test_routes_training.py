"""The routes of training: over HTTP of a real host, on runs that were written by hand, whole ones and broken ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import pytest
from PIL import Image

import lora_files
from host_harness.host import ComfyHost

pytestmark = pytest.mark.host
Json = dict[str, Any]

CONFIG = '[run]\nsteps = 2\n[data]\nfolder = "/srv/secret/pictures"\n'
ROWS = "step,name,value\n1,loss,0.5\n1,rate denoiser,0.0001\n2,loss,0.25\n2,validation,0.3\n"


@pytest.fixture(scope="module")
def runs(comfy: ComfyHost) -> Iterator[Path]:
    folder = comfy.output / "loom"
    for age, name in enumerate(("routes/ink", "routes/broken", "routes/empty")):
        run = folder / f"{name}.run"
        (run / "samples").mkdir(parents=True)
        if name == "routes/ink":
            (run / "config.toml").write_text(CONFIG)
            (run / "loss.csv").write_text(ROWS)
            (run / "state" / "step-000002").mkdir(parents=True)
            for step in (1, 2):
                Image.new("RGB", (8, 8), "red").save(run / "samples" / f"ink-{step:06}-0.png")
        if name == "routes/broken":
            (run / "config.toml").write_bytes(b"\xff[[[")
            (run / "loss.csv").write_bytes(b"\x00\x01nothing")
            (run / "samples" / "broken-000001-0.png").write_bytes(b"none")
        for path in (*run.rglob("*"), run):
            os.utime(path, (1_700_000_000 - age,) * 2)
    for name in ("ink-000001", "ink-000002"):
        lora_files.save(
            comfy.loras / "routes" / f"{name}.safetensors", lora_files.kohya(lora_files.factors("loom_demo", seed=1))
        )
    yield folder
    shutil.rmtree(folder / "routes")
    shutil.rmtree(comfy.loras / "routes")


def listed(comfy: ComfyHost) -> dict[str, Json]:
    return {run["run"]: run for run in comfy.get("/loom/runs")["runs"] if run["run"].startswith("routes/")}


def one(comfy: ComfyHost, run: str) -> Json:
    return comfy.get(f"/loom/run?run={quote(run, safe='')}")


def test_runs_are_listed_newest_first(comfy: ComfyHost, runs: Path) -> None:
    found = listed(comfy)
    assert list(found) == ["routes/ink", "routes/broken", "routes/empty"]
    ink = found["routes/ink"]
    assert (ink["step"], ink["steps"], ink["finished"], ink["loss"], ink["samples"]) == (2, 2, True, 0.375, 2)
    assert ink["live"] is None
    assert ink["lora"].replace("\\", "/") == "routes/ink-000002.safetensors"


def test_all_of_a_run(comfy: ComfyHost, runs: Path) -> None:
    ink = one(comfy, "routes/ink")
    assert ink["losses"] == [[1, 0.5], [2, 0.25]]
    assert (ink["validation"], ink["rates"]) == ([[2, 0.3]], {"denoiser": [[1, 0.0001]]})
    assert ink["config"]["data"]["folder"] == "pictures"
    assert [moment["step"] for moment in ink["samples"]] == [1, 2]
    (image,) = ink["samples"][1]["images"]
    assert comfy.view(image).shape == (8, 8, 3)


def test_what_is_broken_is_listed_with_what_can_be_read(comfy: ComfyHost, runs: Path) -> None:
    found = listed(comfy)
    assert found["routes/broken"]["fault"] == "config.toml cannot be read"
    assert found["routes/empty"]["fault"] == "config.toml is not there"
    assert one(comfy, "routes/broken")["losses"] == []
    assert one(comfy, "routes/empty")["samples"] == []


@pytest.mark.parametrize(
    "run", ["", "routes/none", "../output/loom/routes/ink", "/etc", "routes/ink.run", "routes\\ink"]
)
def test_only_names_of_the_list_are_read(comfy: ComfyHost, runs: Path, run: str) -> None:
    with pytest.raises(HTTPError) as caught:
        one(comfy, run)
    assert caught.value.code in (400, 404)
    assert "error" in json.loads(caught.value.read())


def test_no_answer_has_a_path_of_the_machine(comfy: ComfyHost, runs: Path) -> None:
    text = json.dumps([comfy.get("/loom/runs"), *(one(comfy, run) for run in listed(comfy))])
    assert str(comfy.output) not in text
    assert "/srv" not in text
