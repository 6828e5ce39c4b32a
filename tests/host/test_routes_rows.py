"""The routes of the rows, and what a node tells the page after a run: over HTTP and the websocket of a real host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode

import pytest
import torch

import graphs
import lora_files
from host_harness.host import ComfyHost
from host_harness.prompts import PromptResult
from lora_core.architectures import ARCHITECTURES
from lora_core.io import file_hashes
from lora_core.types import DENOISER
from sparse_files import sparse_file

pytestmark = pytest.mark.host
Json = dict[str, Any]


@pytest.fixture(scope="module")
def loras(comfy: ComfyHost) -> ComfyHost:
    """LoRAs for the demo model and for SD 1.5, one of them for more than the demo model has."""
    parts = lora_files.factors("loom_demo", seed=1)
    lora_files.save(comfy.loras / "rows" / "ink.safetensors", lora_files.kohya(parts))
    odd = lora_files.kohya(parts) | {
        "lora_unet_no_such_block.lora_down.weight": torch.ones(4, 64),
        "lora_unet_no_such_block.lora_up.weight": torch.ones(64, 4),
    }
    lora_files.save(comfy.loras / "rows" / "odd.safetensors", odd)
    parts = lora_files.factors("sd15", seed=2, rank=1, modules=lora_files.ATTENTION)
    lora_files.save(comfy.loras / "rows" / "sd15.safetensors", lora_files.kohya(parts))
    lora_files.save(comfy.loras / "rows" / "none.safetensors", {"nothing": torch.ones(2)})
    return comfy


def refused(comfy: ComfyHost, route: str, body: Json | None = None) -> tuple[int, str]:
    with pytest.raises(HTTPError) as caught:
        comfy.post(route, body) if body is not None else comfy.get(route)
    answer = json.loads(caught.value.read())
    assert list(answer) == ["error"]
    return caught.value.code, answer["error"]


def row(lora: str, **fields: Any) -> Json:
    return {"on": True, "lora": lora, "model": 1.0, "clip": 1.0, "blocks": "", "hash": "", **fields}


# Rows


def test_pasted_rows_come_back_with_the_names_of_the_list(loras: ComfyHost) -> None:
    autov3 = file_hashes(loras.loras / "rows" / "ink.safetensors").autov3
    rgthree = {
        "type": "Power Lora Loader (rgthree)",
        "widgets_values": [{}, {"on": False, "lora": "rows\\ink.safetensors", "strength": 0.5, "strengthTwo": 0}, ""],
    }
    for pasted, expected in (
        ([row("rows/ink")], row("rows/ink.safetensors")),
        (json.dumps([{"lora": "rows/ink", "model": 0.5}]), row("rows/ink.safetensors", model=0.5, clip=0.5)),
        (json.dumps(rgthree), row("rows/ink.safetensors", on=False, model=0.5, clip=0.0)),
        ("a cat <lora:rows/ink:0.8:0.5>", row("rows/ink.safetensors", model=0.8, clip=0.5)),
        ([row("renamed since", hash=autov3)], row("rows/ink.safetensors", hash=autov3)),
    ):
        assert loras.post("/loom/rows", {"rows": pasted}) == {"rows": [expected], "faults": []}, pasted


def test_what_is_wrong_with_a_row_is_said_and_the_others_are_kept(loras: ComfyHost) -> None:
    answer = loras.post("/api/loom/rows", {"rows": [row("rows/ink"), {"lor": "x"}, row("no such"), row("../../etc")]})
    assert [one["lora"] for one in answer["rows"]] == ["rows/ink.safetensors", "no such"]
    faults = "\n".join(answer["faults"])
    assert "row 2: no field 'lor', did you mean 'lora'?" in faults
    assert "no LoRA named 'no such'" in faults
    assert "is a path" in faults


# Fit


def test_a_lora_is_checked_against_the_model_that_is_named(loras: ComfyHost) -> None:
    names = [f"rows/{name}.safetensors" for name in ("ink", "odd", "sd15", "none", "gone")]
    answer = loras.post("/loom/fit", {"model": {"kind": "demo", "name": "Loom Demo (built in)"}, "loras": names})
    assert (answer["architecture"], answer["title"]) == ("loom_demo", "Loom Demo")
    ink, odd, sd15, none, gone = (answer["fits"][name] for name in names)
    assert ink["fits"] is True
    assert ink["matched"] == ink["total"] > 50
    assert ink["reason"] == ""
    assert (odd["fits"], odd["matched"], odd["total"]) == (False, ink["total"], ink["total"] + 1)
    assert odd["reason"] == (
        f"{odd['matched']} of {odd['total']} modules fit: Loom Demo has no module lora_unet_no_such_block"
    )
    assert (sd15["fits"], sd15["reason"]) == (False, "made for SD 1.5; the model is Loom Demo")
    assert none["fits"] is gone["fits"] is False
    assert "not a LoRA file in a known format" in none["reason"]
    assert "no LoRA named" in gone["reason"]


def test_the_family_of_a_checkpoint_is_read_from_its_header(
    loras: ComfyHost, sd15_checkpoint: Path, tmp_path: Path
) -> None:
    name = loras.add_model(sd15_checkpoint, "checkpoints", "rows_sd15.safetensors")
    question = {"loras": ["rows/sd15.safetensors", "rows/ink.safetensors"]}
    answer = loras.post("/loom/fit", {"model": {"kind": "checkpoints", "name": name}, **question})
    assert answer["architecture"] == "sd15"
    assert [fit["fits"] for fit in answer["fits"].values()] == [True, False]

    # FLUX.1's denoiser alone, of which the header is all there is.
    flux = ARCHITECTURES.get("flux").component(DENOISER)
    assert flux is not None
    shapes = {f"{p}.{n}": shape for p, module in flux.modules.items() for n, shape in module.shapes.items()}
    sparse_file(tmp_path / "flux.safetensors", shapes)
    loras.add_model(tmp_path / "flux.safetensors", "diffusion_models", "rows_flux.safetensors")
    answer = loras.post(
        "/loom/fit", {"model": {"kind": "diffusion_models", "name": "rows_flux.safetensors"}, **question}
    )
    assert answer["title"] == "FLUX.1"
    assert answer["fits"]["rows/sd15.safetensors"]["reason"] == "made for SD 1.5; the model is FLUX.1"


def test_a_model_of_no_known_family_says_so(loras: ComfyHost, tmp_path: Path) -> None:
    lora_files.save(tmp_path / "strange.safetensors", {"a.weight": torch.ones(3, 3)})
    name = loras.add_model(tmp_path / "strange.safetensors", "checkpoints", "rows_strange.safetensors")
    answer = loras.post(
        "/loom/fit", {"model": {"kind": "checkpoints", "name": name}, "loras": ["rows/ink.safetensors"]}
    )
    assert (answer["architecture"], answer["title"]) == ("", "")
    (fit,) = answer["fits"].values()
    assert fit["fits"] is None
    assert "not a checkpoint of a known model" in fit["reason"]


def test_questions_that_make_no_sense_are_refused(loras: ComfyHost) -> None:
    assert refused(loras, "/loom/fit", {"loras": []})[0] == 400
    status, text = refused(loras, "/loom/fit", {"model": {"kind": "vae", "name": "x"}, "loras": []})
    assert (status, text) == (400, "model: expected a kind, one of checkpoints, diffusion_models, demo, and a name")
    body = {"model": {"kind": "checkpoints", "name": "../../etc/passwd"}, "loras": []}
    assert refused(loras, "/loom/fit", body)[0] == 404


# Blocks and norms


def test_blocks_presets_and_vectors_of_a_family(loras: ComfyHost) -> None:
    answer = loras.get("/loom/blocks?architecture=sdxl")
    assert answer["title"] == "SDXL"
    assert answer["blocks"][:3] == ["base", "in00", "in01"]
    assert {"name": "All blocks", "text": ""} in answer["presets"]
    assert [one["length"] for one in answer["vectors"]] == [20, 12, 21]
    status, text = refused(loras, "/loom/blocks?architecture=sdxxl")
    assert status == 404
    assert "did you mean 'sdxl'?" in text


def test_block_weights_in_any_form_are_read(loras: ComfyHost) -> None:
    def factors(text: str) -> Any:
        return loras.post("/loom/blocks", {"architecture": "loom_demo", "text": text})["factors"]

    assert factors("") == {}
    assert factors("mid=0, in1=0.5") == {"in01": 0.5, "mid": 0.0}
    assert factors("1,1,1,1,1,0,1,1,1,1")["mid"] == 0.0
    # Asked while somebody types: what is wrong with the text is an answer.
    answer = loras.post("/loom/blocks", {"architecture": "loom_demo", "text": "mad=0"})
    assert answer["factors"] == {}
    assert "mad" in answer["fault"]


def test_the_norm_of_each_block(loras: ComfyHost) -> None:
    answer = loras.get(f"/loom/norms?{urlencode({'name': 'demo_content_food.safetensors'})}")
    assert answer["architecture"] == "loom_demo"
    assert [one["name"] for one in answer["blocks"]][-1] == "text_encoder"
    assert all(one["norm"] > 0 for one in answer["blocks"])
    assert refused(loras, "/loom/norms?name=nowhere")[0] == 404
    assert refused(loras, "/loom/norms")[0] == 400


# Conflicts


def test_rows_that_do_the_same_twice_are_named(loras: ComfyHost) -> None:
    parts = lora_files.kohya(lora_files.factors("loom_demo", seed=1))
    lora_files.save(loras.loras / "rows" / "copy.safetensors", parts)
    rows = [row("rows/odd", on=False), row("rows/ink"), row("gone"), row("rows/copy", model=0.5, clip=0.5)]
    rows += [row("rows/ink", model=-1.0, blocks="mad=0"), row("demo_content_food"), row("rows/sd15")]
    pairs = loras.post("/loom/conflicts", {"rows": rows})["pairs"]
    found = {(pair["a"], pair["b"]): pair for pair in pairs}
    assert set(found) == {(1, 3), (1, 4), (3, 4), (1, 6), (3, 6), (4, 6), (5, 6)}
    assert found[1, 3]["text"] == "the same change in two files twice: its strengths add up to 1.5"
    assert found[1, 3]["cosine"] == 1.0
    assert found[1, 3]["shared"] > 50
    assert found[1, 4]["text"] == "the same file twice: its strengths add up to 0"
    assert found[5, 6]["text"] == "made for different models: Loom Demo and SD 1.5"
    for one in rows:
        one["model"] = one["clip"] = 0.0
    assert loras.post("/loom/conflicts", {"rows": rows}) == {"pairs": []}
    assert refused(loras, "/loom/conflicts", {"rows": [{"lor": "x"}]})[0] == 400


# What a node tells after a run


def told(result: PromptResult, node: str = "lora") -> list[Json] | None:
    """``output.loom`` of the messages of a node."""
    found = [
        data["output"]["loom"]
        for kind, data in result.messages
        if kind == "executed" and data["node"] == node and data["output"]
    ]
    return found[0][0] if found else None


def test_after_a_run_each_row_tells_what_the_model_took(loras: ComfyHost) -> None:
    rows = [row("rows/ink", on=False), row("rows/odd", model=0.5)]
    graph = graphs.demo() | {
        "first": graphs.node("LoomLoraStack", rows={"__value__": [row("rows/ink")]}),
        **graphs.stacked({"__value__": rows}, lora_stack=["first", 2]),
    }
    result = loras.queue(graph)
    incoming, own = told(result) or []
    assert (incoming["row"], incoming["lora"], incoming["model"]) == (None, "rows/ink.safetensors", "Loom Demo")
    assert incoming["matched"] == incoming["total"]
    assert (incoming["missing"], incoming["misfit"], incoming["reason"], incoming["absent"]) == (0, 0, "", {})
    assert (own["row"], own["lora"], own["missing"]) == (1, "rows/odd.safetensors", 1)
    assert own["matched"] == own["total"] - 1
    assert own["reason"] == "Loom Demo has no module lora_unet_no_such_block"
    (alone,) = told(result, "first") or []
    assert (alone["row"], alone["model"]) == (0, None)
    # The host takes each object of an output for a file of the job.
    (job,) = [job for job in loras.get("/api/jobs")["jobs"] if job["id"] == result.prompt_id]
    assert job["outputs_count"] == 1


def test_a_node_that_is_not_run_again_tells_nothing_new(loras: ComfyHost) -> None:
    graph = graphs.demo() | graphs.loaded("rows/ink.safetensors", 0.123)
    (only,) = told(loras.queue(graph)) or []
    assert (only["row"], only["lora"]) == (None, "rows/ink.safetensors")
    again = loras.queue(graph)
    assert "lora" in again.cached
    assert told(again) in (None, [only])


def test_rows_may_be_a_list_its_text_or_nothing_but_are_never_forgotten(loras: ComfyHost) -> None:
    for rows, count in (
        ({"__value__": []}, 0),
        ("", 0),
        ("[]", 0),
        ({"__value__": [row("rows/ink"), row("rows/odd")]}, 2),
        (json.dumps([row("rows/ink")]), 1),
    ):
        result = loras.queue({"lora": graphs.node("LoomLoraStack", rows=rows)} | graphs.shown(["lora", 2]))
        assert len(told(result) or []) == count
    field = loras.object_info("LoomLoraStack")["input"]["required"]["rows"]
    assert (field[0], field[1]["default"], field[1].get("widgetType")) == ("LOOM_ROWS", [], None)
