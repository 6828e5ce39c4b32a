"""The loaders on the demo model: pictures as of the host's own loaders, whatever way the LoRAs come in."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import graphs
import lora_files
from host_harness.host import ComfyHost
from lora_core.io import file_hashes

pytestmark = pytest.mark.host
Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def loras(comfy: ComfyHost) -> ComfyHost:
    """Three LoRAs for the demo model as kohya writes them, one of them in a subfolder, one with a convolution."""
    for seed, (name, modules, alpha) in enumerate(
        (
            ("a.safetensors", lora_files.TRANSFORMERS, 2.0),
            ("sub/b.safetensors", lora_files.TRANSFORMERS, None),
            ("c.safetensors", r"conv|attn", 4.0),
        )
    ):
        parts = lora_files.factors("loom_demo", seed=seed, modules=modules, size=0.15)
        lora_files.save(comfy.loras / name, lora_files.kohya(parts, alpha))
    parts = lora_files.factors("loom_demo", seed=9, size=0.5)
    lora_files.save(comfy.loras / "dora.safetensors", lora_files.with_dora(lora_files.kohya(parts), 9))
    parts = lora_files.factors("loom_demo", seed=5, modules=lora_files.ATTENTION)
    lora_files.save(comfy.loras / "peft.safetensors", lora_files.peft(parts))
    lora_files.save(comfy.loras / "peft_as_kohya.safetensors", lora_files.kohya(parts))
    return comfy


def draw(comfy: ComfyHost, *graph: graphs.Graph) -> Picture:
    whole = graphs.demo()
    for part in graph:
        whole |= part
    (pixels,) = comfy.images(comfy.queue(whole), "picture")
    return pixels


def difference(one: Picture, other: Picture) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def report(comfy: ComfyHost, graph: graphs.Graph, output: int = 4) -> list[dict[str, Any]]:
    result = comfy.queue(graphs.demo() | graph | graphs.shown(["lora", output]))
    return json.loads(result.outputs["shown"]["text"][0])


def test_the_loader_draws_what_the_hosts_own_loader_draws(loras: ComfyHost) -> None:
    base = draw(loras, graphs.picture())
    for name in ("a.safetensors", "sub/b.safetensors", "c.safetensors"):
        ours = draw(loras, graphs.loaded(name, 0.8, 0.6))
        cores = draw(loras, graphs.chained((name, 0.8, 0.6)))
        assert difference(ours, cores) <= 1, name
        assert difference(ours, base) > 8, f"{name} changed nothing"


def test_a_stack_of_three_draws_what_three_chained_loaders_of_the_host_draw(loras: ComfyHost) -> None:
    rows = [
        {"lora": "a.safetensors", "model": 0.8, "clip": 0.5},
        {"lora": "b", "model": -0.6},
        {"on": False, "lora": "dora.safetensors"},
        {"lora": "c.safetensors", "model": 1.1, "clip": 0},
    ]
    cores = draw(
        loras,
        graphs.chained(("a.safetensors", 0.8, 0.5), ("sub/b.safetensors", -0.6, -0.6), ("c.safetensors", 1.1, 0.0)),
    )
    as_text = draw(loras, graphs.stacked(json.dumps(rows)))
    as_list = draw(loras, graphs.stacked({"__value__": rows}))
    assert difference(as_text, cores) <= 1
    assert difference(as_list, as_text) == 0


def test_strength_0_is_exactly_the_base_and_a_negative_one_is_the_hosts(loras: ComfyHost) -> None:
    base = draw(loras, graphs.picture())
    assert difference(draw(loras, graphs.loaded("a.safetensors", 0.0, 0.0)), base) == 0
    assert difference(draw(loras, graphs.stacked("")), base) == 0
    negative = draw(loras, graphs.loaded("a.safetensors", -1.0, -1.0))
    assert difference(negative, draw(loras, graphs.chained(("a.safetensors", -1.0, -1.0)))) <= 1
    assert difference(negative, draw(loras, graphs.loaded("a.safetensors"))) > 8


def test_the_order_counts_where_it_has_to(loras: ComfyHost) -> None:
    def in_order(*names: str) -> Picture:
        return draw(loras, graphs.stacked(json.dumps([{"lora": name} for name in names])))

    # A DoRA scales what it finds, so a LoRA before it is scaled too; sums do not care.
    assert difference(in_order("a", "dora"), in_order("dora", "a")) > 4
    assert difference(in_order("a", "c"), in_order("c", "a")) <= 1


def test_names_of_peft_which_the_host_does_not_load_change_the_picture_as_the_same_factors_in_kohyas(
    loras: ComfyHost,
) -> None:
    base = draw(loras, graphs.picture())
    assert difference(draw(loras, graphs.chained(("peft.safetensors", 1.0, 1.0))), base) == 0
    reference = draw(loras, graphs.chained(("peft_as_kohya.safetensors", 1.0, 1.0)))
    assert difference(reference, base) > 8
    assert difference(draw(loras, graphs.loaded("peft.safetensors")), reference) <= 1


def test_model_or_clip_may_be_absent(loras: ComfyHost) -> None:
    loader = {"lora_name": "a.safetensors", "strength_model": 1.0, "strength_clip": 1.0}
    only_model = {"lora": graphs.node("LoomLoraLoader", model=graphs.MODEL, **loader)}
    only_clip = {"lora": graphs.node("LoomLoraLoader", clip=graphs.CLIP, **loader)}
    on_model = draw(loras, only_model, graphs.picture(["lora", 0]))
    on_clip = draw(loras, only_clip, graphs.picture(None, ["lora", 1]))
    assert difference(on_model, draw(loras, graphs.chained(("a.safetensors", 1.0, 0.0)))) <= 1
    assert difference(on_clip, draw(loras, graphs.chained(("a.safetensors", 0.0, 1.0)))) <= 1
    (alone,) = report(loras, {"lora": graphs.node("LoomLoraLoader", **loader)})
    assert alone["architecture"] == "loom_demo"
    assert "fit" not in alone


def test_a_stack_goes_on_to_other_nodes_and_comes_from_a_prompt(loras: ComfyHost) -> None:
    rows = json.dumps([{"lora": "a", "model": 0.7, "clip": 0.4}, {"lora": "sub/b", "model": 0.5}])
    expected = draw(loras, graphs.stacked(rows))
    handed_on = {
        "first": graphs.node("LoomLoraStack", rows=json.dumps([{"lora": "a", "model": 0.7, "clip": 0.4}])),
        "rows": graphs.node("LoomLoraStack", lora_stack=["first", 2], rows=json.dumps([{"lora": "b", "model": 0.5}])),
        "lora": graphs.node("LoomApplyStack", model=graphs.MODEL, clip=graphs.CLIP, lora_stack=["rows", 2]),
    }
    assert difference(draw(loras, handed_on, graphs.picture(["lora", 0], ["lora", 1])), expected) == 0
    from_prompt = {
        "tags": graphs.node("LoomPromptLoras", text="red heart <lora:a:0.4:0.7><lora:b:0.5>", dialect="a1111"),
        "lora": graphs.node("LoomApplyStack", model=graphs.MODEL, clip=graphs.CLIP, lora_stack=["tags", 1]),
    }
    drawn = draw(loras, from_prompt, graphs.picture(["lora", 0], ["lora", 1], text=["tags", 0]))
    assert difference(drawn, expected) == 0


def test_a_renamed_file_is_found_by_its_hash(loras: ComfyHost) -> None:
    autov3 = file_hashes(loras.loras / "a.safetensors").autov3
    rows = json.dumps([{"lora": "its old name", "hash": autov3}, {"lora": "b", "model": 0}])
    renamed = draw(loras, graphs.stacked(rows))
    assert difference(renamed, draw(loras, graphs.stacked(json.dumps([{"lora": "a"}])))) == 0
    # Handed on with their real names: other packs know neither hashes nor short names.
    result = loras.queue(graphs.demo() | {"lora": graphs.node("LoomLoraStack", rows=rows)} | graphs.shown(["lora", 2]))
    (text,) = result.outputs["shown"]["text"]
    assert "a.safetensors" in text
    assert "sub/b.safetensors" in text
    assert "its old name" not in text


def test_block_weights_reach_their_blocks(loras: ComfyHost) -> None:
    base = draw(loras, graphs.picture())
    none = "base=0, in=0, mid=0, out=0"
    assert difference(draw(loras, graphs.loaded("a.safetensors", 1.0, 0.0, blocks=none)), base) == 0
    half = draw(loras, graphs.loaded("a.safetensors", 1.0, 0.0, blocks="in=0.5, mid=0.5, out=0.5, base=0.5"))
    assert difference(half, draw(loras, graphs.loaded("a.safetensors", 0.5, 0.0))) <= 1


def test_the_lora_model_is_the_hosts_own_type(loras: ComfyHost) -> None:
    loader = graphs.node("LoomLoraLoader", lora_name="a.safetensors", strength_model=1.0, strength_clip=1.0)
    core = graphs.node("LoraModelLoader", model=graphs.MODEL, lora=["lora", 2], strength_model=0.9, bypass=False)
    drawn = draw(loras, {"lora": loader, "core": core}, graphs.picture(["core", 0]))
    assert difference(drawn, draw(loras, graphs.loaded("a.safetensors", 0.9, 0.0))) <= 1
    loras.queue({"lora": loader, "saved": graphs.node("SaveLoRA", lora=["lora", 2], prefix="loras/again")})
    (saved,) = (loras.output / "loras").glob("again_*.safetensors")
    original, again = lora_files.read(loras.loras / "a.safetensors"), lora_files.read(saved)
    assert original.keys() == again.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in original.items())


def test_the_report_names_all_that_a_file_is_and_how_much_of_it_fits(loras: ComfyHost) -> None:
    tensors = lora_files.kohya(lora_files.factors("loom_demo", seed=0), 2.0)
    extra = "lora_unet_no_such_block.lora_up.weight"
    tensors[extra] = torch.ones(64, 4)
    lora_files.save(loras.loras / "odd.safetensors", tensors, ss_tag_frequency='{"5_red ink": {"ink": 5}}')
    (loras.loras / "odd.json").write_text(json.dumps({"activation text": "inky, bold"}))
    rows = json.dumps([{"lora": "odd", "model": 0.5}, {"lora": "c"}])
    graph = {"lora": graphs.node("LoomLoraStack", model=graphs.MODEL, rows=rows)}
    odd, c = report(loras, graph)
    assert odd["format"] == "kohya"
    assert odd["architecture"] == odd["fit"]["model"] == "loom_demo"
    assert odd["tensors"]["unmatched"] == [extra]
    assert odd["tensors"]["total"] == len(tensors) == odd["tensors"]["used"] + 1
    assert odd["ranks"] == {"4": sum(odd["components"].values())}
    assert odd["strengths"] == {"model": 0.5, "clip": 0.5, "blocks": {}}
    assert odd["fit"]["absent"] == {"text_encoder": odd["components"]["text_encoder"]}
    assert odd["fit"]["modules"]["fitting"] == odd["components"]["denoiser"]
    assert c["file"] == "c.safetensors"
    words = loras.queue(graphs.demo() | graph | graphs.shown(["lora", 3])).outputs["shown"]["text"]
    assert words == ["inky, bold"]


def test_inspect_shows_the_report_and_a_table(loras: ComfyHost) -> None:
    inspect = graphs.node("LoomInspectLora", lora_name="dora.safetensors")
    table = graphs.node("SaveImage", images=["lora", 1], filename_prefix="table")
    result = loras.queue({"lora": inspect, "table": table})
    (found,) = json.loads(result.outputs["lora"]["text"][0])
    assert found["adapter_types"] == {"dora": sum(found["components"].values())}
    assert len(found["hashes"]["sha256"]) == 64
    (pixels,) = loras.images(result, "table")
    assert pixels.shape[0] > 100
    assert (pixels == (0x5B, 0x8D, 0xEF)).all(axis=-1).sum() > 1000, "no bars"


def test_an_unchanged_stack_is_not_patched_again(loras: ComfyHost) -> None:
    def loads(rows: list[dict[str, Any]]) -> tuple[int, list[str]]:
        mark = loras.log_mark()
        result = loras.queue(graphs.demo() | graphs.stacked(json.dumps(rows)))
        # The host prints it when it loads a model's weights, and patches them.
        return loras.log(since=mark).count("loaded completely"), result.executed

    rows: list[dict[str, Any]] = [{"lora": "a", "model": 0.31, "clip": 0.31}]
    first, _ = loads(rows)
    again, executed = loads([*rows, {"on": False, "lora": "c"}])
    assert first >= 2
    assert {"lora", "text", "sampler"} <= set(executed), "the host did not run the nodes again"
    assert again == 0
    model_only, _ = loads([{"lora": "a", "model": 0.32, "clip": 0.31}])
    assert model_only == 1, "a strength of the model concerns the model alone"


def test_a_file_that_changes_on_disk_is_read_again(loras: ComfyHost) -> None:
    parts = lora_files.factors("loom_demo", seed=0, size=0.15)
    path = lora_files.save(loras.loras / "changing.safetensors", lora_files.kohya(parts))
    first = draw(loras, graphs.loaded("changing.safetensors"))
    parts = lora_files.factors("loom_demo", seed=77, size=0.15)
    lora_files.save(path, lora_files.kohya(parts))
    assert difference(draw(loras, graphs.loaded("changing.safetensors")), first) > 4
