"""The example workflows in API form, changed in a few inputs, run by a host over HTTP and websocket."""

from __future__ import annotations

import copy
import io
import json
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from host_harness.prompts import HostError, PromptResult, RunningPrompt, request  # noqa: E402

EXAMPLES = ROOT / "example_workflows" / "api"
Graph = dict[str, Any]
Row = dict[str, Any]


def example(name: str) -> Graph:
    """One example workflow, a node id -> {"class_type", "inputs"}."""
    return json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))


def change(graph: Graph, class_type: str, **inputs: Any) -> Graph:
    """A copy in which all nodes of a class have these inputs; those with a link keep the link."""
    changed = copy.deepcopy(graph)
    for node in changed.values():
        if node["class_type"] == class_type:
            links = {k for k, v in node["inputs"].items() if isinstance(v, list)}
            node["inputs"] |= {k: v for k, v in inputs.items() if k not in links}
    return changed


def prompt(graph: Graph, caption: str) -> Graph:
    """A copy with the caption in every text node that is not empty (those are the negative ones)."""
    changed = copy.deepcopy(graph)
    for node in changed.values():
        if node["class_type"] == "CLIPTextEncode" and node["inputs"]["text"]:
            node["inputs"]["text"] = caption
    return changed


def rows(graph: Graph, *chosen: Row) -> Graph:
    """A copy with these rows in its LoRA Stack."""
    return change(graph, "LoomLoraStack", rows=json.dumps(chosen))


class Host:
    """A running ComfyUI with the pack."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def run(self, graph: Graph, timeout: float = 300) -> PromptResult:
        """Queue a graph and wait for its end."""
        return RunningPrompt(self.url, graph, None, HostError).wait(timeout)

    def images(self, result: PromptResult) -> Tensor:
        """All saved pictures of a result, (n, 3, h, w) in [-1, 1]."""
        arrays: list[np.ndarray[Any, Any]] = []
        for output in result.outputs.values():
            for image in output.get("images", []):
                fields = {key: image.get(key, "") for key in ("filename", "subfolder", "type")}
                content = request(self.url, f"/view?{urllib.parse.urlencode(fields)}")
                arrays.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float()
        return pixels / 127.5 - 1.0

    def texts(self, result: PromptResult) -> list[str]:
        """What nodes showed as text: reports, and the name of a merged checkpoint."""
        return [str(text) for output in result.outputs.values() for text in output.get("text", [])]
