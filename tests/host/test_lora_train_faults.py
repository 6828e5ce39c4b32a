"""What LoRA Train says of inputs that cannot be: one line, in the words of the graph."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

import graphs
from host_harness.host import ComfyHost
from host_harness.prompts import HostPromptError
from painted import paint, paint_some

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def things(comfy: ComfyHost) -> str:
    """The name of a folder with four pictures."""
    paint_some(comfy.input / "training" / "wrong", 4)
    return "training/wrong"


@pytest.fixture
def wrong(comfy: ComfyHost, things: str) -> Iterator[Any]:
    """A call with inputs that cannot be, for the one line that is said: (node, line)."""

    def told(folder: str = things, name: str = "runs/wrong", **inputs: Any) -> tuple[str, str]:
        with pytest.raises(HostPromptError) as caught:
            comfy.queue(graphs.demo() | graphs.training(folder, name, **inputs))
        if caught.value.node_errors:
            ((node, fault),) = caught.value.node_errors.items()
            (error,) = fault["errors"]
            line = f"{error['message']}: {error['details']}"
        else:
            node, line = str(caught.value.node_id), caught.value.exception_message
        assert "\n" not in line
        assert not re.search(r"--fresh|--resume|output\.name|run\.steps", line), "words of the command line"
        assert comfy.alive
        return node, line

    yield told
    assert not (comfy.loras / "runs" / "wrong.safetensors").exists()


@pytest.mark.parametrize(
    ("inputs", "node", "said"),
    [
        ({"name": "../mine"}, "train", "'../mine' leaves the loras folder"),
        ({"name": "/mine"}, "train", "'/mine' leaves the loras folder"),
        ({"name": ""}, "train", "it is empty, expected a name"),
        ({"resume": "must"}, "train", "there is no state to go on from: set resume to auto to begin"),
        ({"resume": "perhaps"}, "train", "'perhaps' not in"),
        ({"steps": -1}, "train", "smaller than min"),
        ({"learning_rate": 9.0}, "train", "learning_rate: 9 is for prodigy; adamw needs about 0.0001"),
        ({"rank": 4000, "settings": {"network_targets": "regex:^nowhere$"}}, "train", "chooses no module"),
        ({"settings": {"preset": "mine"}}, "settings", "'mine' not in"),
        ({"settings": {"output_format": "peft"}}, "settings", "'peft' not in"),
        ({"settings": {"text_encoder_learning_rate": 1e-4}}, "settings", "it is for text_encoder_train"),
        ({"settings": {"more": "network.rank = 3"}}, "settings", "network.rank: is what LoRA Train sets"),
        ({"folder": "training/none"}, "data", "no folder of pictures named 'training/none'"),
        ({"folder": "(none)"}, "data", "choose a folder, or connect images"),
        ({"data": {"resolution": 60}}, "data", "resolution 60x60 is below bucket_step 64"),
    ],
)  # fmt: skip
def test_faults_are_one_line(wrong: Any, inputs: dict[str, Any], node: str, said: str) -> None:
    where, line = wrong(**inputs)

    assert where == node
    assert said in line


def test_pictures_without_captions(comfy: ComfyHost, wrong: Any) -> None:
    paint(comfy.input / "training" / "bare" / "one.png")
    node, line = wrong("training/bare")

    assert node == "data"
    assert "no caption found for 1 of 1 pictures" in line


def test_another_run_of_the_same_name(comfy: ComfyHost, things: str, wrong: Any) -> None:
    """Of another rank, of other pictures, of another model."""
    comfy.queue(graphs.demo() | graphs.training(things, "runs/mine"))
    _, rank = wrong(name="runs/mine", rank=3)
    _, data = wrong(name="runs/mine", data={"trigger": "sks"})
    graph = graphs.demo() | graphs.training(things, "runs/mine")
    graph["style"] = graphs.node(
        "LoraLoaderModelOnly", model=graphs.MODEL, lora_name="demo_style_high_contrast.safetensors", strength_model=0.5
    )
    graph["train"]["inputs"]["model"] = ["style", 0]
    with pytest.raises(HostPromptError) as model:
        comfy.queue(graph)

    assert "rank was 2, is 3" in rank
    assert "give another name, or set resume to never" in rank
    assert "pictures, captions or settings" in data
    assert "set resume to never" in data
    assert "the base model is not the one that the run was begun with" in model.value.exception_message
