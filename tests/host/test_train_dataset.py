"""LoRA Dataset in the host: folders of its input folder, pictures of the graph, and faults before anything runs."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

import graphs
from host_harness.host import ComfyHost
from host_harness.prompts import HostPromptError

pytestmark = pytest.mark.host
DEMO = "Loom Demo: High-Contrast emoji (built in)"


def graph(**inputs: Any) -> graphs.Graph:
    """The node ``data``, its report shown in ``report`` and its value in ``value``."""
    return {
        "data": graphs.node("LoomTrainDataset", **{"folder": "(none)", **inputs}),
        "preview": graphs.node("SaveImage", images=["data", 1], filename_prefix="sheet"),
        **graphs.shown(["data", 2], "report"),
        **graphs.shown(["data", 0], "value"),
    }


def told(comfy: ComfyHost, prompt: graphs.Graph) -> tuple[dict[str, Any], str]:
    """The report, and the LOOM_DATASET as text."""
    outputs = comfy.queue(prompt).outputs
    return json.loads(outputs["report"]["text"][0]), outputs["value"]["text"][0]


@pytest.fixture(scope="module")
def cats(comfy: ComfyHost) -> ComfyHost:
    folder = comfy.input / "sets" / "cats"
    folder.mkdir(parents=True)
    for number in range(3):
        levels = np.random.default_rng(number).integers(0, 256, (40 + number, 64, 3), np.uint8)
        Image.fromarray(levels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"cat number {number}")
    return comfy


def test_the_demos_pictures(comfy: ComfyHost) -> None:
    result = comfy.queue(graph(folder=DEMO))
    report = json.loads(result.outputs["report"]["text"][0])

    assert report["pictures"]["trained"] > 100
    assert report["pictures"]["held_out"] > 10
    assert report["captions"]["without"] == 0
    assert list(report["sizes"]) == ["64x64"]
    (sheet,) = comfy.images(result, "preview")
    assert sheet.shape[0] > 600
    assert sheet.shape[1] > 900
    value = result.outputs["value"]["text"][0]
    assert "'split': 'train'" in value
    assert "'split': 'heldout'" in value


def test_a_folder_of_the_input_folder_and_what_the_user_set(cats: ComfyHost) -> None:
    choices = cats.object_info("LoomTrainDataset")["input"]["required"]["folder"][1]["options"]
    assert {"(none)", DEMO, "sets", "sets/cats"} <= set(choices)
    report, value = told(
        cats,
        graph(folder="sets/cats", resolution=64, repeats=2, trigger="sks", flip=0.5, buckets="no", crop="(preset)"),
    )

    assert report["pictures"] == {"trained": 3, "of_the_class": 0, "held_out": 0}
    assert report["epoch"] == 6
    assert report["captions"]["first"]["1.png"] == "sks, cat number 1"
    folder = str(cats.input / "sets" / "cats")
    expected = {"folder": folder, "repeats": 2, "trigger": "sks", "buckets": False, "flip": 0.5, "resolution": 64}
    assert "validation={}" in value
    for key, one in expected.items():
        assert f"{key!r}: {one!r}" in value
    assert "crop" not in value


def test_a_new_picture_is_seen_and_nothing_runs_again_without(cats: ComfyHost) -> None:
    prompt = graph(folder="sets")
    cats.queue(prompt)
    assert "data" in cats.queue(prompt).cached
    folder = cats.input / "sets" / "dogs"
    folder.mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "a.png")
    (folder / "a.txt").write_text("a dog")
    report, _ = told(cats, prompt)

    assert report["pictures"]["trained"] == 4


def test_pictures_of_the_graph_of_two_sizes(comfy: ComfyHost) -> None:
    batch = {"wide": graphs.node("EmptyImage", width=96, height=64, batch_size=2, color=0x336699)}
    report, value = told(comfy, batch | graph(images=["wide", 0], captions="one\ntwo", resolution=64))

    assert report["folder"] == "images"
    assert report["pictures"]["trained"] == 2
    assert report["captions"]["first"] == {"00001.png": "one", "00002.png": "two"}
    (folder,) = (comfy.output / "loom" / "datasets").iterdir()
    assert str(folder) in value
    assert (folder / "metadata.jsonl").is_file()


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "folder: no pictures are given: choose a folder, or connect images"),
        ({"folder": DEMO, "images": ["one", 0]}, "got the folder .* and pictures at the input images"),
        ({"folder": DEMO, "captions": "a"}, "captions: they go with images"),
        ({"images": ["one", 0], "captions": "a\nb"}, "captions: there are 2 captions for 1 pictures"),
        ({"images": ["one", 0]}, "no caption found for 1 of 1 pictures"),
        ({"folder": DEMO, "mask_floor": 0.5}, "mask_floor: has no effect; it is for masks"),
        ({"folder": DEMO, "select": "split"}, "select: expected name = value, got 'split'"),
    ],
)
def test_faults_are_one_line(comfy: ComfyHost, inputs: dict[str, Any], said: str) -> None:
    one = {"one": graphs.node("EmptyImage", width=64, height=64, batch_size=1, color=0)}
    with pytest.raises(HostPromptError) as caught:
        comfy.queue((one if "images" in inputs else {}) | graph(**inputs))

    assert caught.value.node_id == "data"
    message = caught.value.exception_message.strip()
    assert "\n" not in message
    assert re.search(said, message), message


@pytest.mark.parametrize("name", ["../output", "no such"])
def test_a_folder_that_is_none_is_refused_before_anything_runs(comfy: ComfyHost, name: str) -> None:
    with pytest.raises(HostPromptError) as caught:
        comfy.queue(graph(folder=name))
    (error,) = caught.value.node_errors["data"]["errors"]
    assert "leaves the input folder" in error["details"] or "no folder of pictures named" in error["details"]
