"""The example workflows run as they are, and both forms of each say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphs
from host_harness.host import ComfyHost

pytestmark = pytest.mark.host
FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "LOOM_ROWS"}


def api_form(name: str) -> graphs.Graph:
    return json.loads((FOLDER / "api" / f"{name}.json").read_text("utf-8"))


def as_the_page_sends_it(workflow: dict[str, Any], info: dict[str, Any]) -> graphs.Graph:
    """What the page makes of a workflow: links by node and output, and the widgets' values in the order of inputs."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph: graphs.Graph = {}
    for node in workflow["nodes"]:
        values = iter(node["widgets_values"])
        fields = {
            name: field
            for part in ("required", "optional")
            for name, field in info[node["type"]]["input"].get(part, {}).items()
        }
        inputs: dict[str, Any] = {}
        for name, (kind, *options) in fields.items():
            if isinstance(kind, list) or kind in WIDGETS:
                inputs[name] = next(values)
                if options and options[0].get("control_after_generate"):
                    next(values)
        inputs |= {slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_say_the_same(comfy: ComfyHost, name: str) -> None:
    workflow = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    assert as_the_page_sends_it(workflow, comfy.object_info()) == api_form(name)
    outputs = {(node["id"], slot): output for node in workflow["nodes"] for slot, output in enumerate(node["outputs"])}
    for link, source, slot, target, place, kind in workflow["links"]:
        (node,) = (node for node in workflow["nodes"] if node["id"] == target)
        assert node["inputs"][place]["link"] == link
        assert link in outputs[source, slot]["links"]
        assert outputs[source, slot]["type"] == kind


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_as_it_is(comfy: ComfyHost, name: str) -> None:
    result = comfy.queue(api_form(name))
    pictures = comfy.images(result)
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * 4
    assert min(np.std(picture) for picture in pictures) > 5, "an empty picture"
    texts = [output["text"][0] for output in result.outputs.values() if "text" in output]
    assert any("demo_content_food.safetensors" in text for text in texts), "no report"
