"""Merge to Checkpoint on the demo model: the picture of the merged file is the picture of the live stack."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import save_file

import graphs
import lora_files
import small_models
from host_harness.host import ComfyHost
from host_harness.prompts import HostPromptError, PromptResult
from lora_core.io import TensorFile

pytestmark = pytest.mark.host
ROWS = json.dumps([{"lora": "merge/a", "model": 0.8, "clip": 0.5}, {"lora": "merge/dora", "model": 0.7}])
BUILT_IN = "Loom Demo (built in)"


@pytest.fixture(scope="module")
def loras(comfy: ComfyHost) -> ComfyHost:
    parts = lora_files.factors("loom_demo", seed=21, size=0.15)
    lora_files.save(comfy.loras / "merge" / "a.safetensors", lora_files.kohya(parts, 2.0))
    parts = lora_files.factors("loom_demo", seed=22, size=0.5)
    lora_files.save(comfy.loras / "merge" / "dora.safetensors", lora_files.with_dora(lora_files.kohya(parts), 22))
    return comfy


def merged(rows: str = ROWS, **inputs: object) -> graphs.Graph:
    """A merge of the demo model, and a picture of the new file."""
    values = {"ckpt_name": BUILT_IN, "filename": "loom/merged", "dtype": "same", **inputs}
    return {
        "stack": graphs.node("LoomLoraStack", rows=rows),
        "merge": graphs.node("LoomMergeToCheckpoint", lora_stack=["stack", 2], **values),
        **graphs.demo(checkpoint=["merge", 0]),
        **graphs.picture(),
    }


def drawn(comfy: ComfyHost, graph: graphs.Graph) -> tuple[NDArray[np.uint8], PromptResult]:
    result = comfy.queue(graph)
    (pixels,) = comfy.images(result, "picture")
    return pixels, result


def written(comfy: ComfyHost, result: PromptResult) -> Path:
    name = result.outputs["merge"]["text"][0].splitlines()[0]
    return comfy.checkpoints / name


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_the_merged_model_draws_what_the_live_stack_draws(loras: ComfyHost) -> None:
    live, _ = drawn(loras, graphs.demo() | graphs.stacked(ROWS))
    base, _ = drawn(loras, graphs.demo() | graphs.picture())
    # The host keeps the weights as float32 on a CPU, the text encoder as fp16: so does this file.
    exact, result = drawn(loras, merged(dtype="fp32"))
    assert difference(exact, live) <= 1
    assert difference(live, base) > 8
    rounded, _ = drawn(loras, merged(dtype="same"))
    assert np.abs(rounded.astype(int) - live).mean() < 0.2 * np.abs(live.astype(int) - base).mean()
    report = json.loads(result.outputs["merge"]["text"][0].split("\n", 1)[1])
    assert report[0]["loras"][0]["modules"]["fitting"] == report[0]["loras"][0]["modules"]["total"]


def test_names_count_up_and_nothing_is_overwritten(loras: ComfyHost) -> None:
    rows = [json.dumps([{"lora": "merge/a", "model": strength}]) for strength in (0.1, 0.2)]
    first, second = (written(loras, loras.queue(merged(row, filename="twice"))) for row in rows)
    assert (first.name, second.name) == ("twice_00001_.safetensors", "twice_00002_.safetensors")
    content = first.read_bytes()
    # The same again: the host has it, and does not run the node.
    again = loras.queue(merged(rows[1], filename="twice"))
    assert "merge" in again.cached
    assert first.read_bytes() == content
    assert not (loras.checkpoints / "twice_00003_.safetensors").exists()


def test_the_file_says_what_it_is(loras: ComfyHost) -> None:
    path = written(loras, loras.queue(merged(filename="recipe/x.safetensors", dtype="bf16")))
    assert path.parent.name == "recipe"
    with TensorFile(path) as file:
        recipe = json.loads(file.metadata["loom.recipe"])
        assert {ref.dtype for key, ref in file.items() if key.startswith("model.diffusion_model.")} == {"BF16"}
    assert [(lora["name"], lora["model"], lora["clip"]) for lora in recipe["loras"]] == [
        ("a.safetensors", 0.8, 0.5),
        ("dora.safetensors", 0.7, 0.7),
    ]
    assert recipe["dtype"] == "bf16"


def test_progress_is_shown_and_a_cancelled_merge_leaves_nothing(
    loras: ComfyHost, sd15_checkpoint: Path, keys: Path
) -> None:
    name = loras.add_model(sd15_checkpoint, "checkpoints", "big.safetensors")
    parts = lora_files.factors("sd15", seed=1, modules=lora_files.ATTENTION, components=("denoiser",))
    lora_files.save(loras.loras / "big.safetensors", lora_files.kohya(parts))
    before = sorted(path.name for path in loras.checkpoints.rglob("*"))
    graph = merged(json.dumps([{"lora": "big"}]), ckpt_name=name, filename="never")
    running = loras.submit({key: graph[key] for key in ("stack", "merge")})
    assert running.wait_for(lambda kind, data: kind == "progress" and data["value"] >= 5)
    loras.interrupt()
    with pytest.raises(HostPromptError) as caught:
        running.wait()
    assert caught.value.interrupted
    assert sorted(path.name for path in loras.checkpoints.rglob("*")) == before
    assert drawn(loras, graphs.demo() | graphs.picture())[0].std() > 0


def test_a_model_of_the_diffusion_models_folder(loras: ComfyHost) -> None:
    """A denoiser alone: the new file lies beside it, under a name that its loader lists."""
    tensors = small_models.checkpoint_tensors()
    alone = {key: tensor for key, tensor in tensors.items() if key.startswith("model.diffusion_model.")}
    folder = loras.base_directory / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(alone, folder / "alone.safetensors")
    graph = {
        "stack": graphs.node("LoomLoraStack", rows=json.dumps([{"lora": "merge/a"}])),
        "merge": graphs.node(
            "LoomMergeToCheckpoint",
            ckpt_name="[diffusion_models] alone.safetensors",
            lora_stack=["stack", 2],
            filename="loom/alone",
            dtype="same",
        ),
    }
    name = loras.queue(graph).outputs["merge"]["text"][0].splitlines()[0]
    merged_file = TensorFile(folder / name)

    assert set(merged_file) == set(alone)
    changed = [key for key in alone if not merged_file[key].load().equal(alone[key])]
    assert len(changed) > 20
