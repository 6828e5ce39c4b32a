"""What the page sees of the pack: nodes with the names that users know, texts, help pages, and a quick start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from host_harness.environment import HostEnvironment
from host_harness.host import PACK_NAME, ComfyHost

pytestmark = pytest.mark.host

# id -> label, inputs (in brackets: optional), outputs. Users' workflows hold these names: they never change.
NAMES: dict[str, tuple[str, str, str]] = {
    "LoomLoraLoader": (
        "LoRA Loader",
        "lora_name strength_model strength_clip [model] [clip] [blocks] [strict]",
        "MODEL CLIP LORA_MODEL trigger_words report",
    ),
    "LoomLoraStack": (
        "LoRA Stack",
        "rows [model] [clip] [lora_stack] [strict]",
        "MODEL CLIP LORA_STACK trigger_words report",
    ),
    "LoomApplyStack": (
        "Apply LoRA Stack",
        "lora_stack [model] [clip] [strict]",
        "MODEL CLIP trigger_words report",
    ),
    "LoomPromptLoras": ("LoRAs from Prompt", "text dialect [lora_stack]", "text LORA_STACK"),
    "LoomMergeToCheckpoint": (
        "Merge to Checkpoint",
        "ckpt_name lora_stack filename dtype [text_encoders] [vae_name] [strict]",
        "ckpt_name report",
    ),
    "LoomConvertLora": ("Convert LoRA", "lora_name format dtype filename", "lora_name report"),
    "LoomInspectLora": ("Inspect LoRA", "lora_name", "report table trigger_words"),
    "LoomDemoModel": ("Demo Model", "[checkpoint]", "MODEL CLIP VAE"),
}


@pytest.fixture(scope="module")
def ours(comfy: ComfyHost) -> dict[str, Any]:
    return {
        name: node for name, node in comfy.object_info().items() if node["python_module"] == f"custom_nodes.{PACK_NAME}"
    }


def inputs(node: dict[str, Any], part: str) -> dict[str, Any]:
    return node["input"].get(part, {})


def test_nodes_have_the_names_that_users_know(ours: dict[str, Any]) -> None:
    def names(node: dict[str, Any]) -> tuple[str, str, str]:
        listed = [*inputs(node, "required"), *(f"[{name}]" for name in inputs(node, "optional"))]
        return node["display_name"], " ".join(listed), " ".join(node["output_name"])

    assert {name: names(node) for name, node in ours.items()} == NAMES
    assert {node["category"] for node in ours.values()} == {"LoRA Loom"}
    writing = {"LoomMergeToCheckpoint", "LoomConvertLora"}
    assert {name for name, node in ours.items() if node["output_node"]} == writing | {"LoomInspectLora"}


def test_advanced_inputs_are_marked(ours: dict[str, Any]) -> None:
    marked = {
        f"{name}.{field}"
        for name, node in ours.items()
        for field, (_, *options) in inputs(node, "optional").items()
        if options and options[0].get("advanced")
    }
    assert {"LoomLoraLoader.blocks", "LoomLoraLoader.strict", "LoomDemoModel.checkpoint"} <= marked


def test_texts_are_those_of_the_nodes(ours: dict[str, Any], comfy: ComfyHost, repository: Path) -> None:
    """locales/en/nodeDefs.json is what the page shows, and what translators start from."""

    def described(node: dict[str, Any]) -> dict[str, Any]:
        fields = inputs(node, "required") | inputs(node, "optional")
        tooltips = {name: (options or [{}])[0].get("tooltip") for name, (_, *options) in fields.items()}
        shown = zip(node["output_name"], node["output_tooltips"], strict=True)
        return {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": {name: text(name, tooltip) for name, tooltip in tooltips.items()},
            "outputs": {str(index): text(name, tooltip) for index, (name, tooltip) in enumerate(shown)},
        }

    def text(name: str, tooltip: str | None) -> dict[str, str]:
        return {"name": name, "tooltip": tooltip} if tooltip else {"name": name}

    expected = {name: described(node) for name, node in ours.items()}
    assert json.loads((repository / "locales" / "en" / "nodeDefs.json").read_text("utf-8")) == expected
    served = comfy.get("/i18n")["en"]["nodeDefs"]
    assert {name: served[name] for name in expected} == expected


def test_help_pages_and_example_workflows_are_served(ours: dict[str, Any], comfy: ComfyHost) -> None:
    for name in ours:
        page = comfy.get(f"/extensions/{PACK_NAME}/docs/{name}.md")
        assert page.decode().startswith(f"# {ours[name]['display_name']}\n")
    examples = comfy.get("/workflow_templates")[PACK_NAME]
    assert sorted(examples) == ["loras_from_prompt", "merge_to_checkpoint", "style_and_content_stack"]


def test_nothing_failed_while_starting(comfy: ComfyHost) -> None:
    assert comfy.problems() == [], comfy.log()[-4000:]


def test_the_pack_costs_the_host_less_than_150_milliseconds(
    comfy_environment: HostEnvironment, repository: Path, tmp_path: Path
) -> None:
    """Of computing time, as a second start has it: Python has compiled the files, the host has imported torch."""
    code = """
import asyncio, importlib.util, json, sys, time
sys.dont_write_bytecode, sys.pycache_prefix = False, sys.argv[2]
import torch, comfy.sd, folder_paths, nodes, comfy_api.latest
imported, before = set(sys.modules), time.process_time()
spec = importlib.util.spec_from_file_location("pack_x_y", sys.argv[1] + "/__init__.py")
pack = importlib.util.module_from_spec(spec)
sys.modules["pack_x_y"] = pack
spec.loader.exec_module(pack)
extension = asyncio.run(pack.comfy_entrypoint())
asyncio.run(extension.on_load())
for node in asyncio.run(extension.get_node_list()):
    node.GET_SCHEMA()
spent = time.process_time() - before
heavy = {"diffusers", "peft", "matplotlib", "typer", "accelerate", "transformers"} & (set(sys.modules) - imported)
print(json.dumps({"spent": spent, "heavy": sorted(heavy)}))
"""
    runs = [
        json.loads(comfy_environment.run_code(code, str(repository), str(tmp_path)).splitlines()[-1]) for _ in range(3)
    ]
    assert min(run["spent"] for run in runs) < 0.15, runs
    assert [run["heavy"] for run in runs] == [[], [], []]
