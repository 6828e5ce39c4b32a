"""LoRA Train Settings in the host: what the user set reaches the engine's names, faults stop it, all at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import graphs
import lora_files
from host_harness.host import ComfyHost
from host_harness.prompts import HostPromptError

pytestmark = pytest.mark.host


def graph(**inputs: Any) -> graphs.Graph:
    return {
        "settings": graphs.node("LoomTrainSettings", **{"preset": "auto-style", **inputs}),
        **graphs.shown(["settings", 0]),
    }


def told(comfy: ComfyHost, **inputs: Any) -> str:
    return comfy.queue(graph(**inputs)).outputs["shown"]["text"][0]


def test_a_preset_alone(comfy: ComfyHost) -> None:
    assert told(comfy) == "TrainSettings(preset='auto-style', values={})"


def test_all_inputs_as_the_page_gives_them_set_nothing(comfy: ComfyHost) -> None:
    listed = comfy.object_info("LoomTrainSettings")["input"]
    given = {name: options["default"] for name, (_, options) in listed["optional"].items()}

    assert told(comfy, **{**given, "preset": "sdxl-style"}) == "TrainSettings(preset='sdxl-style', values={})"
    assert len(given) > 80
    assert "peft" not in listed["optional"]["output_format"][1]["options"]
    assert "pivotal" in listed["required"]["preset"][1]["options"]


def test_what_is_set(comfy: ComfyHost) -> None:
    said = told(
        comfy,
        network_alpha=4,
        network_block_ranks="mid = 2",
        samples_prompts="a cat, red\na dog",
        text_encoder_train="yes",
        more="network.alpha = 2.5\nobjective.loss = 'l1'",
    )
    assert said == (
        "TrainSettings(preset='auto-style', values={'network': {'alpha': 2.5, 'block_ranks': {'mid': 2}}, "
        "'samples': {'prompts': ['a cat, red', 'a dog']}, 'text_encoder': {'train': True}, "
        "'objective': {'loss': 'l1'}})"
    )


def test_a_lora_to_go_on_with(comfy: ComfyHost) -> None:
    lora_files.save(comfy.loras / "start" / "ink.safetensors", {"a": torch.ones(2)})
    choices = comfy.object_info("LoomTrainSettings")["input"]["optional"]["network_continue_from"][1]["options"]
    assert choices[0] == "(none)"
    assert "start/ink.safetensors" in choices

    said = told(comfy, network_continue_from="start/ink.safetensors")
    assert f"'continue_from': '{comfy.loras / 'start' / 'ink.safetensors'}'" in said
    with pytest.raises(HostPromptError) as caught:
        comfy.queue(graph(network_continue_from="../ink.safetensors"))
    (error,) = caught.value.node_errors["settings"]["errors"]
    assert "expected a name inside the loras folder" in error["details"]


def test_faults_are_said_together_by_the_names_of_inputs(comfy: ComfyHost) -> None:
    with pytest.raises(HostPromptError) as caught:
        comfy.queue(graph(network_alpha=0, run_batch=0, network_dropout=1.0))

    assert caught.value.node_id == "settings"
    assert caught.value.exception_message.strip() == (
        "LoRA Train Settings: network_alpha: expected more than 0, got 0.0; network_dropout: expected less than 1, "
        "got 1.0; run_batch: expected at least 1, got 0"
    )


def test_a_choice_that_is_none_is_refused(comfy: ComfyHost) -> None:
    with pytest.raises(HostPromptError) as caught:
        comfy.queue(graph(optimizer_name="adm"))
    (error,) = caught.value.node_errors["settings"]["errors"]
    assert error["type"] == "value_not_in_list"
