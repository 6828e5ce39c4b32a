"""The file that a MODEL of a graph was loaded from, for the metadata of what is trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import folder_paths

# Inputs of loaders that name a file -> the host's folder of it.
_NAMES = {"ckpt_name": "checkpoints", "unet_name": "diffusion_models", "checkpoint": "checkpoints"}
# A MODEL goes through its inputs of this name, in the host's nodes and in most others.
_THROUGH = ("model", "base")


def base_of(prompt: Mapping[str, Any] | None, node: str | None, input_name: str = "model") -> str:
    """Path of the file, its name where the host has no such file, or "" where no loader is found.

    Args:
        prompt: the graph in the API's form.
        node: id of the node whose input it is.
        input_name: which of its inputs.
    """
    seen: set[str] = set()
    links = [] if prompt is None or node is None else [(prompt.get(node) or {}).get("inputs", {}).get(input_name)]
    while links:
        link = links.pop()
        if prompt is None or not (isinstance(link, list) and link and str(link[0]) in prompt) or str(link[0]) in seen:
            continue
        seen.add(str(link[0]))
        inputs = prompt[str(link[0])].get("inputs", {})
        for name, folder in _NAMES.items():
            if isinstance(value := inputs.get(name), str):
                return folder_paths.get_full_path(folder, value) or value
        links += [inputs.get(name) for name in _THROUGH]
    return ""
