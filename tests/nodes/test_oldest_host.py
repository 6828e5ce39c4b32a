"""The nodes use only what ComfyUI 0.3.64 has, the oldest host that the pack supports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

NODES = Path(__file__).resolve().parents[2] / "nodes"
FILES = sorted(NODES.glob("*.py"))
# Arguments that came later, and that 0.3.64 answers with a TypeError.
NEWER = {
    "search_aliases",
    "essentials_category",
    "has_intermediate_output",
    "is_dev_only",
    "accept_all_inputs",
    "advanced",
    "raw_link",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_argument_is_newer(file: Path) -> None:
    tree = ast.parse(file.read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    used = {word.arg for call in calls for word in call.keywords if word.arg}
    assert used & NEWER == set()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_pack_imports_itself_relatively(file: Path) -> None:
    """The host loads the folder under a name that cannot be typed; by another name it would be a second copy."""
    tree = ast.parse(file.read_text("utf-8"))
    absolute = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    absolute += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert [name for name in absolute if name and name.split(".")[0] in ("lora_core", "nodes")] == []
