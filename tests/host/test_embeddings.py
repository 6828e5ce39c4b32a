"""Embeddings inside a LoRA: a prompt names them, and they are what the same files in the host's folder are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

import graphs
import lora_files
from host_harness.environment import HostEnvironment
from host_harness.host import ComfyHost

pytestmark = pytest.mark.host
WIDTH = 128  # of the demo's text encoder


@pytest.fixture(scope="module")
def vectors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(3, WIDTH, generator=generator) for name in ("ink", "oil", "theirs")}


@pytest.fixture(scope="module")
def host(comfy: ComfyHost, vectors: dict[str, torch.Tensor]) -> ComfyHost:
    """A LoRA with three embeddings, one of which has the name of a file that the user has already."""
    parts = lora_files.kohya(lora_files.factors("loom_demo", seed=3, modules=lora_files.ATTENTION, size=0.02))
    bundled = {
        "bundle_emb.ink wash.clip_l": vectors["ink"],
        "bundle_emb.<oil>.string_to_param.*": vectors["oil"],
        "bundle_emb.mine.clip_l": vectors["oil"].clone(),
        "bundle_emb.wide.clip_g": torch.ones(1, 1280),
        "bundle_emb.late.clip_l_out": torch.ones(1, WIDTH),
    }
    lora_files.save(comfy.loras / "bundle.safetensors", parts | bundled)
    folder = comfy.base_directory / "models" / "embeddings"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("plain_ink", "ink"), ("plain_oil", "oil"), ("mine", "theirs")):
        save_file({"clip_l": vectors[content]}, folder / f"{name}.safetensors")
    return comfy


def draw(comfy: ComfyHost, text: str, lora: graphs.Graph | None = None) -> NDArray[np.int64]:
    loader = lora or {
        "lora": graphs.node("LoomLoraLoader", model=graphs.MODEL, clip=graphs.CLIP, lora_name="bundle.safetensors",
                            strength_model=1.0, strength_clip=1.0)
    }  # fmt: skip
    graph = graphs.demo() | loader | graphs.picture(["lora", 0], ["lora", 1], text=text, steps=2)
    (pixels,) = comfy.images(comfy.queue(graph), "picture")
    return pixels.astype(np.int64)


def test_a_prompt_names_an_embedding_of_the_lora(host: ComfyHost) -> None:
    without = draw(host, "red heart")
    for name, same in (("ink_wash", "plain_ink"), ("oil", "plain_oil"), ("bundle-mine", "plain_oil")):
        pixels = draw(host, f"red embedding:{name}, heart")
        assert np.abs(pixels - without).max() > 4, name
        assert np.array_equal(pixels, draw(host, f"red embedding:{same}, heart")), name
    assert np.abs(draw(host, "red embedding:oil heart") - draw(host, "red embedding:ink_wash heart")).max() > 4


def test_a_file_of_the_user_keeps_its_name(host: ComfyHost) -> None:
    """``mine`` is in the LoRA too, with other vectors; without the LoRA's name it is the user's."""
    theirs = draw(host, "red embedding:mine heart")
    assert np.abs(theirs - draw(host, "red embedding:plain_oil heart")).max() > 4
    assert np.abs(theirs - draw(host, "red heart")).max() > 4


def test_a_stack_and_a_chain_know_them_and_a_prompt_without_the_lora_does_not(host: ComfyHost) -> None:
    expected = draw(host, "red embedding:ink_wash heart")
    rows = json.dumps([{"lora": "bundle"}])
    stack = {"lora": graphs.node("LoomLoraStack", model=graphs.MODEL, clip=graphs.CLIP, rows=rows)}
    assert np.array_equal(draw(host, "red embedding:ink_wash heart", stack), expected)
    twice = {
        "first": graphs.node("LoomLoraStack", model=graphs.MODEL, clip=graphs.CLIP, rows=rows),
        "lora": graphs.node("LoomLoraStack", model=["first", 0], clip=["first", 1],
                            rows=json.dumps([{"lora": "bundle", "model": 0, "clip": 0}])),
    }  # fmt: skip
    assert np.array_equal(draw(host, "red embedding:ink_wash heart", twice), expected)
    base = {"lora": graphs.node("LoomDemoModel")}
    mark = host.log_mark()
    unknown = draw(host, "red embedding:ink_wash heart", base)
    assert np.array_equal(unknown, draw(host, "red heart", base))
    assert "embedding:ink_wash does not exist" in host.log(since=mark)


def test_the_report_says_what_to_write_and_what_cannot_be_used(host: ComfyHost) -> None:
    rows = json.dumps([{"lora": "bundle"}])
    for clip, found in ((graphs.CLIP, "embedding:ink_wash"), (None, None)):
        inputs = {"model": graphs.MODEL, "rows": rows} | ({"clip": clip} if clip else {})
        graph = {"lora": graphs.node("LoomLoraStack", **inputs)}
        shown = graphs.shown(["lora", 4]) | graphs.shown(["lora", 3], "words")
        result = host.queue(graphs.demo() | graph | shown)
        (said,) = json.loads(result.outputs["shown"]["text"][0])
        embeddings: dict[str, Any] = said["embeddings"]
        assert said["tensors"]["unmatched"] == []
        assert embeddings["ink wash"]["vectors"] == {"clip_l": 3}
        assert embeddings["ink wash"]["prompt"] == found
    assert embeddings["ink wash"]["notes"] == ["no CLIP is connected"]
    assert result.outputs["words"]["text"] == [""]


def test_what_the_report_says_with_a_clip(host: ComfyHost) -> None:
    graph = graphs.demo() | {
        "lora": graphs.node("LoomLoraStack", clip=graphs.CLIP, rows=json.dumps([{"lora": "bundle"}]))
    }
    result = host.queue(graph | graphs.shown(["lora", 4]) | graphs.shown(["lora", 3], "words"))
    (said,) = json.loads(result.outputs["shown"]["text"][0])
    assert {token: found["prompt"] for token, found in said["embeddings"].items()} == {
        "ink wash": "embedding:ink_wash",
        "<oil>": "embedding:oil",
        "mine": "embedding:bundle-mine",
        "wide": None,
        "late": None,
    }
    notes = {token: found["notes"] for token, found in said["embeddings"].items()}
    assert notes["mine"] == ["embedding:mine is another one, of an embeddings folder or of a LoRA before this one"]
    assert notes["wide"] == ["clip_g is for an encoder 1280 wide, this CLIP has clip_l (128 wide)"]
    assert notes["late"] == ["clip_l_out takes the place of what the encoder returns, for which ComfyUI has no way"]
    (words,) = result.outputs["words"]["text"]
    assert set(words.split(", ")) == {"embedding:ink_wash", "embedding:oil", "embedding:bundle-mine"}


CODE = """
import asyncio, importlib, importlib.util, json, sys
from pathlib import Path
from types import SimpleNamespace
import torch, folder_paths, comfy.sdxl_clip, comfy.text_encoders.sd2_clip
root, folder = Path(sys.argv[1]), sys.argv[2]
spec = importlib.util.spec_from_file_location("pack_x_y", root / "__init__.py")
pack = sys.modules["pack_x_y"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
asyncio.run(pack.comfy_entrypoint())
folder_paths.set_temp_directory(folder)
embeddings = importlib.import_module("pack_x_y.nodes._embeddings")
io = importlib.import_module("pack_x_y.lora_core.io")

class Clip:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
    def clone(self):
        return Clip(self.tokenizer)

def given(tokenizer, **widths):
    ones = {name: torch.full((2, width), 1.0 + index) for index, (name, width) in enumerate(widths.items())}
    source = io.TensorDict(ones)
    adapter = SimpleNamespace(embeddings={"<s1>": dict(source.items())}, file="pivot.safetensors")
    clip = Clip(tokenizer)
    new, ((found,),) = embeddings.give_embeddings(clip, [adapter])
    assert clip.tokenizer is tokenizer
    assert {part.embedding_directory for part in vars(tokenizer).values() if hasattr(part, "embedding_key")} == {None}
    words = new.tokenizer.tokenize_with_weights("a embedding:s1")
    return found.prompt, {
        name: [float(token[0]) for token, _ in batches[0] if torch.is_tensor(token)] for name, batches in words.items()
    }, list(found.notes)

sdxl, sd2 = comfy.sdxl_clip.SDXLTokenizer(), comfy.text_encoders.sd2_clip.SD2Tokenizer()
print(json.dumps([
    given(sdxl, clip_l=768, clip_g=1280),
    given(sdxl, clip_l=768),
    given(sdxl, clip_l=1024),
    given(sd2, clip_l=1024),
]))
"""


def test_each_text_encoder_gets_its_own(comfy_environment: HostEnvironment, repository: Path, tmp_path: Path) -> None:
    """SDXL has two encoders; the one of SD 2 is not called ``clip_l``, as files of the time say."""
    text = comfy_environment.run_code(CODE, str(repository), str(tmp_path)).splitlines()[-1]
    both, left, wrong, second = json.loads(text)
    assert both == ["embedding:s1", {"l": [1.0, 1.0], "g": [2.0, 2.0]}, []]
    assert left == ["embedding:s1", {"l": [1.0, 1.0], "g": []}, []]
    assert wrong[0] is None
    assert wrong[2] == ["clip_l is for an encoder 1024 wide, this CLIP has clip_l (768 wide), clip_g (1280 wide)"]
    assert second == ["embedding:s1", {"h": [1.0, 1.0]}, []]
