"""The rules of docs/ARCHITECTURE.md about who may import whom, read from the source."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "lora_core"

# Each file or folder of lora_core may import those before it and itself. A new one takes its place here.
ORDER = (
    *("version", "text", "errors", "types", "registry", "numeric", "collection", "untrusted"),
    *("io", "architectures", "adapters", "formats"),
    *("names", "rows", "prompt", "pasted", "blocks", "block_presets", "metadata", "sidecars", "trigger_words"),
    *("stack", "fitting", "repeats", "mapping", "finite", "binding", "patching", "quantised"),
    *("norms", "conflicts"),
    *("inspect", "index", "library", "merge", "model_family", "convert", "train", "cli", "__main__"),
)
HOST = ("comfy", "comfy_api", "comfy_execution", "folder_paths", "nodes", "server")
# Loading the pack must cost the host nothing, so these are imported where they are first used.
HEAVY = ("accelerate", "diffusers", "matplotlib", "peft", "rich", "transformers", "typer")
# What the command line is written with, below lora_core.cli, which the pack does not load.
COMMAND_LINE = ("rich", "typer")
# What only nodes/_bridge.py may know of the host.
PATCH_TYPES = ("comfy.lora", "comfy.weight_adapter")


class Import(NamedTuple):
    """One import statement: where it stands, and the dotted name relative to the repository."""

    place: str
    name: str
    relative: bool


def imports(file: Path) -> Iterator[Import]:
    """All imports of a file, also those inside functions and those for type checkers."""
    package = file.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        place = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (Import(place, alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            # `from . import kohya` names modules, `from .base import Format` does not; both are covered by the prefix.
            names = [f"{module}.{alias.name}" if node.level and not node.module else module for alias in node.names]
            yield from (Import(place, name, bool(node.level)) for name in names)


def source(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def unit(name: str) -> str:
    """``lora_core.io.dtypes`` -> ``io``; "" for what is not of the library."""
    parts = name.split(".")
    return parts[1] if parts[0] == "lora_core" and len(parts) > 1 else ""


def starts(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def test_the_library_imports_nothing_of_the_host_and_nothing_of_the_nodes():
    wrong = [found for file in source("lora_core") for found in imports(file) if starts(found.name, HOST)]

    assert wrong == []


@pytest.mark.parametrize("folder", ["lora_core", "nodes"])
def test_inside_the_pack_imports_are_relative(folder: str):
    """The host loads the pack under another name: `import lora_core` would be a second copy."""
    wrong = [
        found
        for file in source(folder)
        for found in imports(file)
        if not found.relative and starts(found.name, ("lora_core",))
    ]

    assert wrong == []


def test_every_part_of_the_library_has_its_place_in_the_order():
    parts = {path.stem for path in LIBRARY.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}

    assert parts - {"__init__"} <= set(ORDER)


def test_parts_import_only_what_comes_before_them():
    position = {name: index for index, name in enumerate(ORDER)}
    wrong: list[str] = []
    for file in source("lora_core"):
        own = file.relative_to(LIBRARY).parts[0].removesuffix(".py")
        for found in imports(file):
            other = unit(found.name)
            # The package itself is the library's face: it may import all, and nothing in it imports the face.
            if own != "__init__" and found.relative and position.get(other, len(ORDER)) > position[own]:
                wrong.append(f"{found.place} imports {found.name}")

    assert wrong == []


def test_only_the_bridge_knows_the_hosts_patch_types():
    wrong = [
        found
        for file in source("nodes")
        if file.name != "_bridge.py"
        for found in imports(file)
        if starts(found.name, PATCH_TYPES)
    ]

    assert wrong == []


# Runs in a fresh process. Whatever module is imported, Python imports the package `lora_core` before it, so that is
# done once; then each module is imported in a fork of its own, where it finds nothing that another one has imported.
# One that its package imports itself is there when the package is, and has been imported with it.
PROBE = """
import importlib, json, os, sys
host, modules = json.loads(sys.argv[1])

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in host:
            raise ImportError(f"{name} is the host's")

sys.meta_path.insert(0, Blocked())
import numpy, pydantic, safetensors.torch, torch  # once for all; what may not be imported is none of these
before = set(sys.modules)
import lora_core
faults, with_package = {}, {}
for module, heavy in modules.items():  # a package comes before what is in it
    if module in sys.modules or module in with_package.get(module.rpartition(".")[0], ()):
        continue
    reader, writer = os.pipe()
    if os.fork() == 0:
        fault = ""
        try:
            importlib.import_module(module)
            new = {name.partition(".")[0] for name in set(sys.modules) - before}
            loaded = sorted(new & set(heavy))
            fault = f"imports {loaded}" if loaded else ""
        except BaseException as error:
            fault = f"{type(error).__name__}: {error}"
        below = [name for name in sys.modules if name.startswith(module + ".")]
        with os.fdopen(writer, "w") as pipe:
            json.dump([fault, below], pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        fault, with_package[module] = json.load(pipe)
    os.wait()
    if fault:
        faults[module] = fault
print(json.dumps(faults))
"""


def heavy(module: str) -> list[str]:
    """What a module may not import."""
    return [name for name in HEAVY if name not in COMMAND_LINE or not module.startswith("lora_core.cli.")]


def test_each_module_of_the_library_imports_alone_without_a_host():
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in source("lora_core")]
    # Importing __main__ is running the command.
    modules = {name.removesuffix(".__init__") for name in names} - {"lora_core.__main__"}

    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([HOST, {name: heavy(name) for name in sorted(modules)}])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}
    assert len(modules) > 20


def test_the_root_can_be_imported_without_a_host_under_any_name():
    spec = importlib.util.spec_from_file_location("custom_nodes.lora-loom_1.0", ROOT / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    root = importlib.util.module_from_spec(spec)

    spec.loader.exec_module(root)

    assert callable(root.comfy_entrypoint)
    # A module that has these is read the old way, and its entry point is ignored.
    assert not hasattr(root, "NODE_CLASS_MAPPINGS")
