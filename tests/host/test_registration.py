"""What the page sees of the pack: nodes with the names that users know, texts, help pages, and a quick start."""

from __future__ import annotations

import json
import os
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
    "LoomTrainDataset": (
        "LoRA Dataset",
        "folder [images] [captions] [resolution] [repeats] [caption] [trigger] [validation_split] "
        "[caption_extensions] [text_column] [select] [buckets] [bucket_step] [max_aspect] [upscale] [crop] [flip] "
        "[colour_jitter] [latents] [caption_dropout] [tag_dropout] [shuffle_tags] [keep_tokens] [separator] "
        "[wildcards] [masks] [mask_floor] [cache_latents] [cache_text] [workers] [prior_folder] [prior_select] "
        "[prior_caption] [prior_weight] [validation_folder] [validation_select] [validation_every] "
        "[validation_timesteps] [validation_train_subset] [validation_prompts]",
        "dataset preview report",
    ),
    "LoomTrainSettings": (
        "LoRA Train Settings",
        "preset [network_type] [network_alpha] [network_targets] [network_conv_rank] [text_encoder_train] "
        "[text_encoder_learning_rate] [optimizer_name] [optimizer_schedule] [optimizer_warmup] [run_batch] "
        "[run_accumulate] [run_seed] [run_precision] [run_checkpointing] [samples_prompts] [samples_negative] "
        "[samples_every] [samples_steps] [samples_guidance] [output_save_every] [output_format] [output_dtype] [more] "
        "[network_rslora] [network_conv_alpha] [network_start] [network_exclude] [network_block_ranks] "
        "[network_block_alphas] [network_dropout] [network_rank_dropout] [network_module_dropout] "
        "[network_decompose_factor] [network_lora_plus] [network_train] [network_continue_from] [text_encoder_rank] "
        "[text_encoder_alpha] [text_encoder_targets] [text_encoder_until] [objective_loss] [objective_huber_delta] "
        "[objective_huber_schedule] [objective_weighting] [objective_gamma] [objective_timesteps] "
        "[objective_timestep_mean] [objective_timestep_std] [objective_timestep_range] [objective_shift] "
        "[objective_noise_offset] [objective_noise_offset_random] [objective_multires_noise] "
        "[objective_multires_discount] [objective_input_perturbation] [optimizer_weight_decay] [optimizer_betas] "
        "[optimizer_eps] [optimizer_options] [optimizer_cycles] [optimizer_power] [optimizer_clip] [optimizer_ema] "
        "[run_compile] [run_channels_last] [run_attention] [run_log_every] [run_stuck_after] [samples_seed] "
        "[samples_width] [samples_height] [samples_first] [output_keep] [output_state_every] [output_title] "
        "[output_author] [output_description] [output_license] [output_tags] [output_comment] [output_thumbnail] "
        "[output_tensorboard] [output_plot] [tokens_names] [tokens_start] [tokens_learning_rate] [tokens_steps] "
        "[tokens_keep_training] [tokens_norm] [tokens_norm_decay] [tokens_templates]",
        "settings",
    ),
    "LoomLoraTrain": (
        "LoRA Train",
        "model clip vae dataset name steps rank learning_rate resume [settings]",
        "LORA_MODEL lora_name loss_plot samples report",
    ),
    "LoomConvertLora": ("Convert LoRA", "lora_name format dtype filename", "lora_name report"),
    "LoomInspectLora": ("Inspect LoRA", "lora_name", "report table trigger_words"),
    "LoomSaveLora": ("Save LoRA", "lora_model filename format dtype [metadata]", "lora_name"),
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
    writing = {"LoomMergeToCheckpoint", "LoomConvertLora", "LoomSaveLora", "LoomLoraTrain"}
    assert {name for name, node in ours.items() if node["output_node"]} == writing | {"LoomInspectLora"}


def test_advanced_inputs_are_marked(ours: dict[str, Any]) -> None:
    marked = {
        f"{name}.{field}"
        for name, node in ours.items()
        for field, (_, *options) in inputs(node, "optional").items()
        if options and options[0].get("advanced")
    }
    assert {"LoomLoraLoader.blocks", "LoomLoraLoader.strict", "LoomDemoModel.checkpoint"} <= marked
    assert {"LoomTrainDataset.flip", "LoomTrainSettings.more", "LoomSaveLora.metadata"} <= marked


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
    file = repository / "locales" / "en" / "nodeDefs.json"
    if os.environ.get("LOOM_WRITE"):
        file.write_text(json.dumps(expected, indent=2, ensure_ascii=False) + "\n", "utf-8")
    assert json.loads(file.read_text("utf-8")) == expected, "run this test with LOOM_WRITE=1"
    served = comfy.get("/i18n")["en"]["nodeDefs"]
    assert {name: served[name] for name in expected} == expected


def test_help_pages_and_example_workflows_are_served(ours: dict[str, Any], comfy: ComfyHost, repository: Path) -> None:
    for name in ours:
        page = comfy.get(f"/extensions/{PACK_NAME}/docs/{name}.md")
        assert page.decode().startswith(f"# {ours[name]['display_name']}\n")
    examples = comfy.get("/workflow_templates")[PACK_NAME]
    there = (repository / "example_workflows").glob("*.json")
    assert sorted(examples) == sorted(path.stem for path in there)


def test_nothing_failed_while_starting(comfy: ComfyHost) -> None:
    assert comfy.problems() == [], comfy.log()[-4000:]


# What the host or the pack's work needs at some time, none of it to show the nodes.
HEAVY = ("accelerate", "diffusers", "matplotlib", "peft", "pydantic", "rich", "transformers", "typer")


def test_loading_the_pack_imports_nothing_heavy(comfy_environment: HostEnvironment, repository: Path) -> None:
    """How long it takes is measured by benchmarks/start.py; what makes it long everywhere is imports."""
    code = """
import asyncio, builtins, importlib.util, json, sys
import torch, comfy.sd, folder_paths, nodes, server, comfy_api.latest  # the host has them when it loads packs

asked, plain = set(), builtins.__import__

def noting(name, globals=None, locals=None, fromlist=(), level=0):
    # also of what is there already: the host may have transformers, and the pack is to do without it
    if level == 0 and str((globals or {}).get("__name__")).startswith("pack_x_y"):
        asked.add(name.partition(".")[0])
    return plain(name, globals, locals, fromlist, level)

before, builtins.__import__ = set(sys.modules), noting
spec = importlib.util.spec_from_file_location("pack_x_y", sys.argv[1] + "/__init__.py")
pack = sys.modules["pack_x_y"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
extension = asyncio.run(pack.comfy_entrypoint())
asyncio.run(extension.on_load())
shown = [node.GET_SCHEMA().node_id for node in asyncio.run(extension.get_node_list())]
new = set(sys.modules) - before
others = [name for name in new if name.partition(".")[0] != "pack_x_y"]
print(json.dumps({"shown": shown, "asked": sorted(asked), "others": sorted(others)}))
"""
    told = json.loads(comfy_environment.run_code(code, str(repository)).splitlines()[-1])

    assert sorted(told["shown"]) == sorted(NAMES)
    assert "torch" in told["asked"]
    assert set(told["asked"]) & set(HEAVY) == set()
    assert {name.partition(".")[0] for name in told["others"]} & set(HEAVY) == set()
    # Neither the host nor the pack's own: now none; a few of the standard library are no harm.
    assert len(told["others"]) <= 20, told["others"]
