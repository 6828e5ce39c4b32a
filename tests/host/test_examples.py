"""The example workflows run as they are, and both forms of each say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphs
from host_harness.host import ComfyHost
from host_harness.prompts import HostPromptError

pytestmark = pytest.mark.host
FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "LOOM_ROWS"}
# Nodes of the page alone.
NOTES = {"MarkdownNote"}
# They train, one on the demo's model, the other on files of the user's.
FIRST, OWN_FILES = "train_your_first_lora", "train_sd15_or_sdxl"


def api_form(name: str) -> graphs.Graph:
    return json.loads((FOLDER / "api" / f"{name}.json").read_text("utf-8"))


def fields_of(kind: str, info: dict[str, Any]) -> dict[str, Any]:
    return {
        name: field for part in ("required", "optional") for name, field in info[kind]["input"].get(part, {}).items()
    }


def as_the_page_sends_it(workflow: dict[str, Any], info: dict[str, Any]) -> graphs.Graph:
    """What the page makes of a workflow: links by node and output, and the widgets' values in the order of inputs.

    Widgets for which there is no value in the file are left alone, and keep their default.
    """
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph: graphs.Graph = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        values = iter(node["widgets_values"])
        inputs: dict[str, Any] = {}
        for name, (kind, *options) in fields_of(node["type"], info).items():
            if isinstance(kind, list) or kind in WIDGETS:
                value = next(values, (options or [{}])[0].get("default"))
                # A bare list would be a link.
                inputs[name] = {"__value__": value} if isinstance(value, list) else value
                if options and options[0].get("control_after_generate"):
                    next(values)
        assert not list(values), f"{node['type']} has fewer widgets"
        inputs |= {slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def without_defaults(graph: graphs.Graph, info: dict[str, Any]) -> graphs.Graph:
    """The API form may leave out what the page sends in any case: optional inputs at their defaults."""

    def chosen(kind: str, name: str, value: Any) -> bool:
        field = info[kind]["input"].get("optional", {}).get(name, [None])
        return len(field) == 1 or "default" not in field[1] or field[1]["default"] != value

    return {
        key: {**node, "inputs": {k: v for k, v in node["inputs"].items() if chosen(node["class_type"], k, v)}}
        for key, node in graph.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_say_the_same(comfy: ComfyHost, name: str) -> None:
    workflow, info = json.loads((FOLDER / f"{name}.json").read_text("utf-8")), comfy.object_info()
    sent = as_the_page_sends_it(workflow, info)
    assert without_defaults(sent, info) == without_defaults(api_form(name), info)
    outputs = {(node["id"], slot): output for node in workflow["nodes"] for slot, output in enumerate(node["outputs"])}
    for link, source, slot, target, place, kind in workflow["links"]:
        (node,) = (node for node in workflow["nodes"] if node["id"] == target)
        assert node["inputs"][place]["link"] == link
        assert link in outputs[source, slot]["links"]
        assert outputs[source, slot]["type"] == kind


@pytest.mark.parametrize("name", NAMES)
def test_its_nodes_and_links_are_those_of_the_host(comfy: ComfyHost, name: str) -> None:
    graph, info = api_form(name), comfy.object_info()
    for node in graph.values():
        kind = node["class_type"]
        fields = fields_of(kind, info)
        assert set(node["inputs"]) <= set(fields)
        assert set(info[kind]["input"].get("required", {})) <= set(node["inputs"]), kind
        for field, value in node["inputs"].items():
            wanted = "COMBO" if isinstance(fields[field][0], list) else fields[field][0]
            if isinstance(value, list):
                given = info[graph[value[0]]["class_type"]]["output"][value[1]]
                assert wanted == given or "*" in (wanted, given), (kind, field)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {FIRST, OWN_FILES}))
def test_it_runs_as_it_is(comfy: ComfyHost, name: str) -> None:
    result = comfy.queue(api_form(name))
    pictures = comfy.images(result)
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * 4
    assert min(np.std(picture) for picture in pictures) > 5, "an empty picture"
    texts = [output["text"][0] for output in result.outputs.values() if "text" in output]
    assert any("demo_content_food.safetensors" in text for text in texts), "no report"


def test_the_first_training_runs(comfy: ComfyHost) -> None:
    """The page's form, with a few steps in the place of 150."""
    workflow = json.loads((FOLDER / f"{FIRST}.json").read_text("utf-8"))
    graph = as_the_page_sends_it(workflow, comfy.object_info())
    (train,) = (key for key, node in graph.items() if node["class_type"] == "LoomLoraTrain")
    (data,) = (node["inputs"] for node in graph.values() if node["class_type"] == "LoomTrainDataset")
    (settings,) = (node["inputs"] for node in graph.values() if node["class_type"] == "LoomTrainSettings")
    for node in graph.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 2
    graph[train]["inputs"] |= {"name": "examples/first", "steps": 4, "learning_rate": 0.01}
    settings |= {"samples_every": 0, "samples_steps": 2, "run_batch": 2}
    few = "group = Smileys & Emotion\nsplit ="
    data |= {"select": f"{few} train", "validation_select": f"{few} heldout"}

    result = comfy.queue(graph)

    name, report = result.outputs[train]["text"][0].split("\n", 1)
    assert (name, json.loads(report)[0]["architecture"]) == ("examples/first.safetensors", "loom_demo")
    assert (comfy.loras / name).is_file()
    named = {workflow_node["id"]: workflow_node.get("title") for workflow_node in workflow["nodes"]}
    saved = {
        named[int(key)]: np.stack(comfy.images(result, key))
        for key, node in graph.items()
        if node["class_type"] == "SaveImage"
    }
    assert [pictures.shape for pictures in saved.values()] == [(4, 64, 64, 3)] * 2
    assert np.any(saved["With the LoRA"] != saved["Without the LoRA"])
    titles = {named[int(key)] for key, output in result.outputs.items() if output.get("images")}
    assert {"Loss", "Pictures to learn from"} <= titles


def test_the_training_on_files_of_ones_own_lacks_only_those(comfy: ComfyHost) -> None:
    with pytest.raises(HostPromptError) as caught:
        comfy.queue(api_form(OWN_FILES))
    said = str(caught.value)
    assert "ckpt_name" in said
    assert "my_pictures" in said
