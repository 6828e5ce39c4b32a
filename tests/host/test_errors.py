"""Bad input: one clear line in the prompt's answer, the host goes on, and nothing half-written is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import graphs
import lora_files
from host_harness.host import ComfyHost
from host_harness.prompts import HostPromptError

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def good(comfy: ComfyHost) -> Path:
    tensors = lora_files.kohya(lora_files.factors("loom_demo", seed=3, modules=lora_files.ATTENTION))
    return lora_files.save(comfy.loras / "ink" / "good_lines.safetensors", tensors)


def refused(comfy: ComfyHost, graph: graphs.Graph) -> str:
    """What the host says of a prompt that it does not start."""
    with pytest.raises(HostPromptError) as caught:
        comfy.queue(graphs.demo() | graph)
    (fault,) = (error for node in caught.value.node_errors.values() for error in node["errors"])
    assert caught.value.exception_type == ""
    assert comfy.alive
    return fault["details"]


def failed(comfy: ComfyHost, graph: graphs.Graph) -> tuple[str, str]:
    """Kind and text of the error of a node; the host draws on afterwards."""
    with pytest.raises(HostPromptError) as caught:
        comfy.queue(graphs.demo() | graph)
    assert caught.value.node_id in ("lora", "stack")
    assert "\n" not in caught.value.exception_message
    assert comfy.queue(graphs.demo() | graphs.picture()).outputs
    return caught.value.exception_type.split(".")[-1], caught.value.exception_message


def test_a_missing_file_is_refused_with_the_nearest_name(comfy: ComfyHost, good: Path) -> None:
    said = refused(comfy, graphs.loaded("ink/good_line.safetensors"))
    assert said == ("lora_name - no LoRA named 'ink/good_line.safetensors': did you mean 'ink/good_lines.safetensors'?")
    said = refused(comfy, graphs.stacked(json.dumps([{"lora": "god_lines"}])))
    assert "good_lines" in said
    said = refused(comfy, {"lora": graphs.node("LoomInspectLora", lora_name="good_lynes")})
    assert "good_lines" in said
    tags = graphs.node("LoomPromptLoras", text="a boat <lora:nothing_like_it:1>", dialect="a1111")
    said = refused(comfy, {"lora": tags} | graphs.shown(["lora", 0]))
    assert "no LoRA named 'nothing_like_it'" in said


@pytest.mark.parametrize("name", ["../good_lines.safetensors", "/etc/passwd", "ink/../../secret", "C:\\secret"])
def test_a_path_out_of_the_folder_is_refused(comfy: ComfyHost, good: Path, name: str) -> None:
    (comfy.loras.parent / "good_lines.safetensors").write_bytes(good.read_bytes())
    for graph in (graphs.loaded(name), graphs.stacked(json.dumps([{"lora": name}]))):
        assert "expected a name inside the loras folder" in refused(comfy, graph)


def test_a_short_name_of_two_files_is_refused_with_both(comfy: ComfyHost, good: Path) -> None:
    for folder in ("one", "two"):
        (comfy.loras / folder).mkdir(exist_ok=True)
        (comfy.loras / folder / "twin.safetensors").write_bytes(good.read_bytes())
    said = refused(comfy, graphs.stacked(json.dumps([{"lora": "twin"}])))
    assert "one/twin.safetensors, two/twin.safetensors" in said
    assert "with its folder" in said


def test_all_faults_of_rows_are_named_at_once(comfy: ComfyHost, good: Path) -> None:
    rows = [{"lora": "good_lines", "modle": 1}, {"lora": "good_lines", "model": "much"}]
    said = refused(comfy, graphs.stacked(json.dumps(rows)))
    assert "row 1: no field 'modle', did you mean 'model'?" in said
    assert "row 2: 'model' is 'much', expected a number" in said
    assert "not JSON" in refused(comfy, graphs.stacked("[{"))


def test_files_that_are_not_what_they_promise(comfy: ComfyHost, good: Path) -> None:
    whole = good.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    bad = {
        "truncated": whole[: len(whole) // 2],
        "header": (length + 10**9).to_bytes(8, "little") + whole[8:],
        "not_json": whole[:8] + b"x" * length + whole[8 + length :],
        "page": b"<!DOCTYPE html><html>not found</html>",
        "empty": b"",
    }
    for name, content in bad.items():
        (comfy.loras / f"{name}.safetensors").write_bytes(content)
        kind, said = failed(comfy, graphs.loaded(f"{name}.safetensors"))
        assert kind == "CorruptFileError", said
        assert said.startswith(f"{name}.safetensors: "), said


def test_numbers_that_are_none(comfy: ComfyHost, good: Path) -> None:
    tensors = lora_files.read(good)
    key = next(iter(tensors))
    tensors[key].view(-1)[:3] = torch.nan
    lora_files.save(comfy.loras / "nan.safetensors", tensors)
    for graph in (graphs.loaded("nan.safetensors"), graphs.stacked(json.dumps([{"lora": "nan", "model": 0.5}]))):
        kind, said = failed(comfy, graph)
        assert kind == "NonFiniteError"
        assert said.startswith(f"nan.safetensors: {key}: 3 of {tensors[key].numel()} values are NaN or infinite.")


def test_strengths_that_are_none(comfy: ComfyHost, good: Path) -> None:
    """JSON of the API may hold NaN, which the host's own check of the least and the greatest lets pass."""
    name = good.relative_to(comfy.loras).as_posix()
    kind, said = failed(comfy, graphs.loaded(name, float("nan"), 1.0))
    assert kind == "ConfigError"
    assert said == f"strengths of '{name}': 'model' is nan, expected a number"
    stack = graphs.stacked(json.dumps([{"lora": "good_lines", "clip": float("nan")}]))
    assert "row 1: 'clip' is nan, expected a number" in refused(comfy, stack)


def test_names_with_line_ends_make_no_second_line(comfy: ComfyHost, good: Path) -> None:
    tensors = lora_files.read(good) | {"lora_unet_no\nwhere.lora_up.weight": torch.ones(4, 4)}
    lora_files.save(comfy.loras / "lines.safetensors", tensors)
    kind, said = failed(comfy, graphs.loaded("lines.safetensors", strict=True))
    assert kind == "UnmappedKeysError"
    assert "no where.lora_up.weight" in said
    assert "\n" not in refused(comfy, graphs.stacked(json.dumps([{"lora": "no\nwhere"}])))


def test_a_lora_for_another_base(comfy: ComfyHost, good: Path) -> None:
    tensors = lora_files.kohya(lora_files.factors("sdxl", seed=1, rank=1, modules=lora_files.ATTENTION))
    modules = len(tensors) // 2
    lora_files.save(comfy.loras / "xl.safetensors", tensors)
    kind, said = failed(comfy, graphs.loaded("xl.safetensors"))
    assert kind == "WrongBaseError"
    assert said.startswith("xl.safetensors: made for SDXL, the model is Loom Demo: 0 of ")
    assert f"0 of {modules} modules fit" in said


def test_files_that_are_no_loras(comfy: ComfyHost, good: Path) -> None:
    lora_files.save(comfy.loras / "embedding.safetensors", {"emb_params": torch.zeros(2, 128)})
    kind, said = failed(comfy, graphs.loaded("embedding.safetensors"))
    assert kind == "UnknownFormatError"
    assert "'emb_params'" in said


def test_strict_fails_with_what_is_not_used(comfy: ComfyHost, good: Path) -> None:
    tensors = lora_files.read(good) | {"lora_unet_nowhere.lora_up.weight": torch.ones(4, 4)}
    lora_files.save(comfy.loras / "odd_one.safetensors", tensors)
    assert comfy.queue(graphs.demo() | graphs.loaded("odd_one.safetensors", strict=False)).outputs
    kind, said = failed(comfy, graphs.loaded("odd_one.safetensors", strict=True))
    assert kind == "UnmappedKeysError"
    assert f"1 of {len(tensors)} tensors are not used (lora_unet_nowhere.lora_up.weight)" in said


def test_block_weights_that_make_no_sense(comfy: ComfyHost, good: Path) -> None:
    kind, said = failed(comfy, graphs.loaded(good.relative_to(comfy.loras).as_posix(), blocks="in77=1, mid=much"))
    assert kind == "ConfigError"
    assert "in77" in said
    assert "mid is 'much', expected a number" in said


def merge(comfy: ComfyHost, lora: str, **inputs: object) -> graphs.Graph:
    stack = graphs.node("LoomLoraStack", rows=json.dumps([{"lora": lora}]))
    values = {"ckpt_name": "Loom Demo (built in)", "filename": "bad/merge", "dtype": "same", **inputs}
    return {"stack": stack, "lora": graphs.node("LoomMergeToCheckpoint", lora_stack=["stack", 2], **values)}


def test_a_merge_that_fails_leaves_no_file(comfy: ComfyHost, good: Path) -> None:
    tensors = lora_files.read(good)
    next(iter(tensors.values())).view(-1)[0] = torch.inf
    lora_files.save(comfy.loras / "infinite.safetensors", tensors)
    kind, _ = failed(comfy, merge(comfy, "infinite"))
    assert kind == "NonFiniteError"
    # An error that only the merge itself finds, when its file has a name already.
    other = lora_files.kohya(lora_files.factors("sdxl", seed=1, rank=1, modules=r"attn1\.to_q$"))
    lora_files.save(comfy.loras / "for_xl.safetensors", other)
    kind, _ = failed(comfy, merge(comfy, "for_xl"))
    assert kind == "WrongBaseError"
    lora_files.save(comfy.checkpoints / "strange.safetensors", {"weight": torch.zeros(3, 3)})
    kind, said = failed(comfy, merge(comfy, "good_lines", ckpt_name="strange.safetensors"))
    assert kind == "UnknownCheckpointError", said
    # Neither files nor folders: "bad" of "bad/merge" is not there.
    assert [path.name for path in comfy.checkpoints.rglob("*")] == ["strange.safetensors"]


@pytest.mark.parametrize("filename", ["../out", "/tmp/out", "a/../../out", "", "C:\\out"])
def test_a_merge_writes_inside_the_folder_only(comfy: ComfyHost, good: Path, filename: str) -> None:
    said = refused(comfy, merge(comfy, "good_lines", filename=filename))
    assert "filename" in said


def test_demo_model_takes_only_its_own_checkpoints(comfy: ComfyHost, good: Path) -> None:
    said = refused(comfy, {"base": graphs.node("LoomDemoModel", checkpoint="none.safetensors")} | graphs.picture())
    assert "no checkpoint named 'none.safetensors'" in said
