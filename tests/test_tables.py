"""Explicit tables do not forget a file: every row that a module defines is in its table."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lora_core import adapters, architectures, formats, quantised
from lora_core.adapters import ADAPTER_TYPES, AdapterType
from lora_core.architectures import ARCHITECTURES, Architecture
from lora_core.errors import UnknownNameError
from lora_core.formats import FORMATS, Format
from lora_core.quantised import SCHEMES, Scheme
from lora_core.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
TABLES: list[tuple[ModuleType, type, Registry[Any]]] = [
    (formats, Format, FORMATS),
    (adapters, AdapterType, ADAPTER_TYPES),
    (architectures, Architecture, ARCHITECTURES),
    (quantised, Scheme, SCHEMES),
]
names = pytest.mark.parametrize(
    ("package", "kind", "table"), TABLES, ids=["formats", "adapters", "architectures", "quantised"]
)


@names
def test_every_row_of_the_folder_is_in_the_table(package: ModuleType, kind: type, table: Registry[Any]):
    defined = {
        f"{module.name}.{name}": row
        for module in pkgutil.iter_modules(package.__path__)
        for name, row in vars(importlib.import_module(f"{package.__name__}.{module.name}")).items()
        if isinstance(row, kind)
    }
    listed = {id(row) for row in table}

    assert defined
    assert [place for place, row in defined.items() if id(row) not in listed] == []


@names
def test_names_are_found_and_typing_errors_answered(package: ModuleType, kind: type, table: Registry[Any]):
    for name in table.names:
        assert isinstance(table.get(name), kind)
    with pytest.raises(UnknownNameError, match="did you mean"):
        table.get(table.names[0] + "x")


def classes(base: str) -> dict[str, str]:
    """Class -> file, of the classes in nodes/ that derive from the host's ``base``. Importing them needs a host."""
    return {
        node.name: file.name
        for file in sorted((ROOT / "nodes").glob("*.py"))
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(parent).split(".")[-1] == base for parent in node.bases)
    }


def listed_nodes() -> list[str]:
    """The names in ``NODES`` of nodes/__init__.py."""
    for node in ast.parse((ROOT / "nodes" / "__init__.py").read_text("utf-8")).body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == "NODES" and isinstance(node, ast.AnnAssign):
            assert isinstance(node.value, ast.Tuple)
            return [ast.unparse(item) for item in node.value.elts]
    raise AssertionError("nodes/__init__.py has no NODES: tuple[...] = (...)")


def test_every_node_is_in_the_table():
    defined = classes("ComfyNode")

    assert defined
    assert sorted(defined) == sorted(listed_nodes())


def test_every_node_has_a_help_page_and_texts():
    texts = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text("utf-8"))
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}

    assert set(listed_nodes()) == pages == set(texts)
