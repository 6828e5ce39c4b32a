"""The host itself: it starts with the pack, its log is clean, prompts run, fail and stop as the harness says."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_harness.host import PACK_NAME, ComfyHost
from host_harness.prompts import HostPromptError

pytestmark = pytest.mark.host


def picture(width: int = 64, color: int = 0x102030) -> dict[str, object]:
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": width, "height": 32, "batch_size": 1, "color": color},
        },
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "picture"}},
    }


def sampled(checkpoint: str, steps: int = 2) -> dict[str, object]:
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a boat", "clip": ["1", 1]}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "4": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0],
                "seed": 1, "steps": steps, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            },
        },
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "sampled"}},
    }  # fmt: skip


def test_the_pack_is_loaded_and_registers_its_nodes(comfy: ComfyHost) -> None:
    info = comfy.object_info()
    ours = {name for name, node in info.items() if node["python_module"] == f"custom_nodes.{PACK_NAME}"}
    assert ours, "the pack registered no node"
    assert all(name.startswith("Loom") for name in ours), ours
    assert {info[name]["category"].split("/")[0] for name in ours} == {"LoRA Loom"}


def test_nothing_failed_while_starting(comfy: ComfyHost) -> None:
    assert comfy.problems() == [], comfy.startup_log[-4000:]


def test_a_prompt_of_core_nodes_returns_its_picture(comfy: ComfyHost) -> None:
    result = comfy.queue(picture())
    (pixels,) = comfy.images(result)
    assert pixels.shape == (32, 64, 3)
    assert pixels[0, 0].tolist() == [0x10, 0x20, 0x30]
    assert result.executed == ["1", "2"]
    again = comfy.queue(picture())
    assert again.cached == ["1", "2"]


def test_a_refused_prompt_carries_the_hosts_reasons(comfy: ComfyHost) -> None:
    with pytest.raises(HostPromptError, match="width") as caught:
        comfy.queue(picture(width=0))
    assert caught.value.node_errors["1"]["class_type"] == "EmptyImage"
    assert caught.value.exception_type == ""
    assert comfy.alive


def test_a_failing_node_carries_its_exception(comfy: ComfyHost) -> None:
    (comfy.input / "broken.png").write_bytes(b"not a picture")
    prompt = {
        "2": {"class_type": "LoadImage", "inputs": {"image": "broken.png"}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }
    mark = comfy.log_mark()
    with pytest.raises(HostPromptError, match=r"broken\.png") as caught:
        comfy.queue(prompt)
    assert caught.value.node_id == "2"
    assert comfy.problems(since=mark), "the failure is in the log"
    assert comfy.problems() == [], "but did not happen at the start"
    assert caught.value.node_type == "LoadImage"
    assert caught.value.exception_type
    assert comfy.alive


def test_a_checkpoint_samples_and_can_be_interrupted(comfy: ComfyHost, sd15_reduced: Path) -> None:
    name = comfy.add_model(sd15_reduced, "checkpoints")
    result = comfy.queue(sampled(name))
    (pixels,) = comfy.images(result)
    assert pixels.shape == (64, 64, 3)
    assert pixels.std() > 1, "a flat picture: the weights did not do anything"
    assert [value for node, value, _ in result.progress if node == "4"] == [1, 2]

    running = comfy.submit(sampled(name, steps=5000))
    assert running.wait_for(lambda kind, data: kind == "progress" and data["value"] >= 1)
    comfy.interrupt()
    with pytest.raises(HostPromptError) as caught:
        running.wait()
    assert caught.value.interrupted
    assert comfy.queue(sampled(name)).cached  # the host goes on, with what it had


def test_code_runs_where_comfy_can_be_imported(comfy_environment) -> None:
    assert comfy_environment.run_code("import sys, comfy.lora; print(sys.argv[1])", "hello").strip() == "hello"
