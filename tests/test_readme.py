"""README.md tells the truth: its Python and its commands are run as they stand, its nodes are those that there are."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import running
from lora_core.architectures import ARCHITECTURES
from lora_core.types import Target
from painted import paint_some

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
SMALL = ARCHITECTURES.get("loom_demo")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README names: two LoRAs, and a checkpoint of the smallest family."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / 10

    weights: dict[str, torch.Tensor] = {}
    for module, spec in SMALL.walk():
        for parameter, shape in spec.shapes.items():
            place = SMALL.place(Target(module, parameter))
            assert place is not None
            weights[place.key] = random(*shape).half()
    save_file(weights, tmp_path / "model.safetensors")
    denoiser = SMALL.components[0]
    for name in ("ink", "rain"):
        tensors: dict[str, torch.Tensor] = {}
        for path, module in denoiser.modules.items():
            if path.endswith(("to_q", "to_k", "to_v")):
                out, into = module.shapes["weight"]
                key = f"lora_unet_{path.replace('.', '_')}"
                tensors[f"{key}.lora_down.weight"] = random(4, into)
                tensors[f"{key}.lora_up.weight"] = random(out, 4)
                tensors[f"{key}.alpha"] = torch.tensor(2.0)
        save_file(tensors, tmp_path / f"{name}.safetensors", {"modelspec.trigger_phrase": name})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_library_in_ten_lines(folder: Path):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    output = io.StringIO()

    with contextlib.redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), {})

    assert len(code.strip().splitlines()) <= 12
    found, changed = output.getvalue().splitlines()
    assert re.fullmatch(r"kohya loom_demo \d+ True", found)
    assert re.fullmatch(r"\d+ of \d+ tensors changed", changed)
    base, merged = load_file(folder / "model.safetensors"), load_file(folder / "merged.safetensors")
    different = {key for key in base if not torch.equal(base[key], merged[key])}
    assert len(different) == int(changed.split()[0])
    assert any("middle_block" in key for key in different)  # rain is off there, ink is not


def commands() -> list[list[str]]:
    lines = re.findall(r"^    (loom .+)$", README, flags=re.MULTILINE)
    return [shlex.split(line) for line in lines]


# What a reader writes with `--init`: here a short run on the demo's model.
RUN = f"""
preset = "loom_demo-subject"
model.base = {json.dumps(str(ROOT / "demo" / "model"))}
data.folder = "pictures"
run = {{ steps = 2, batch = 1 }}
"""


@pytest.mark.parametrize("command", commands(), ids=lambda command: " ".join(command[1:3]))
def test_the_commands(folder: Path, command: list[str]):
    paint_some(folder / "pictures", 2)
    if "--init" not in command:
        (folder / "run.toml").write_text(RUN, "utf-8")
    done = running.loom(*command[1:], folder=folder, environment={"PATH": ""})

    assert done.status == 0, done.err
    if "--json" in command:
        document = json.loads(done.out)
        if command[1] == "train":
            assert (document["finished"], document["report"]["parameters"] > 0) == (True, True)
        else:
            assert document[0]["architecture"] == "loom_demo"
    if command[1] == "train" and "--init" not in command:
        assert (folder / "loras" / "lora.safetensors").stat().st_size > 0
    if "-o" in command:
        assert (folder / command[command.index("-o") + 1]).stat().st_size > 0


def test_the_table_of_nodes_is_that_of_the_pack():
    """Labels in the README, in the order of the table; each with a paragraph of its own."""
    labels = [
        str(keyword.value.value)
        for name in re.findall(
            r"^from \.(\w+) import Loom", (ROOT / "nodes/__init__.py").read_text("utf-8"), re.MULTILINE
        )
        for node in ast.walk(ast.parse((ROOT / "nodes" / f"{name}.py").read_text("utf-8")))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "display_name"
        and ast.unparse(node.func) == "io.Schema"
        and isinstance(keyword.value, ast.Constant)
    ]
    section = README.split("## The nodes")[1].split("\n## ")[0]

    assert sorted(labels) == sorted(re.findall(r"^\| ([^|`-]+?) \|", section, flags=re.MULTILINE)[1:])
    assert set(labels) == set(re.findall(r"^\*\*(.+?)\*\*", section, flags=re.MULTILINE))


# Made by a command, or by whoever follows the example.
LATER = {"demo/out/", "nodes/trigger_words.py", "web/docs/LoomTriggerWords.md"}
FOLDERS = "benchmarks|demo|docs|example_workflows|examples|locales|lora_core|nodes|tests|web"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/ARCHITECTURE.md", "docs/how_to_add.md"])
def test_files_that_pages_name_are_there(page: str):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
    named = set(re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text)) | set(re.findall(r"\]\((?!http)([^)#]+)\)", text))

    assert named
    assert sorted(path for path in named - LATER if not (ROOT / path).exists()) == []


def test_the_examples_are_there():
    """Each that a page gives a command for, and no other."""
    named = set(re.findall(r"python -m examples\.(\w+)", (ROOT / "docs/TRAINING.md").read_text("utf-8")))

    runnable = {path.stem for path in (ROOT / "examples").glob("*.py") if "__main__" in path.read_text("utf-8")}
    assert named == runnable
