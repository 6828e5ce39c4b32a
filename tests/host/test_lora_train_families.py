"""LoRA Train on models of real families, cut down, from the host's own loaders: what it writes is theirs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import graphs
from host_harness.host import ComfyHost
from host_harness.prompts import HostPromptError, PromptResult
from lora_core.io import TensorFile
from painted import noise

pytestmark = pytest.mark.host

FOLDER = "families/shapes"
# Pictures of one area and two proportions, as large as their buckets, so that nothing is scaled or cut.
SIZES = {"square": (64, 64), "wide": (128, 32)}
DATA = {"bucket_step": 32, "max_aspect": 4.0, "validation_split": 0.0}
FAMILIES = ["sd15", "flux", "sd3", pytest.param("sdxl", marks=pytest.mark.slow)]


@dataclass(frozen=True)
class Family:
    """A model in the host.

    Args:
        loaders: nodes of it.
        model, clip, vae: their outputs.
        base: name of its file.
    """

    loaders: graphs.Graph
    model: list[Any]
    clip: list[Any]
    vae: list[Any]
    base: str


@pytest.fixture(scope="module")
def shapes(comfy: ComfyHost) -> str:
    for number, (name, size) in enumerate(SIZES.items()):
        path = comfy.input / FOLDER / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(size, number).save(path)
        path.with_suffix(".txt").write_text(f"a {name} thing")
    return FOLDER


def family(comfy: ComfyHost, request: pytest.FixtureRequest, name: str) -> Family:
    made = request.getfixturevalue(f"{name}_reduced")
    if name in ("sd15", "sdxl"):
        base = comfy.add_model(made, "checkpoints")
        return Family(graphs.checkpoint(base), graphs.MODEL, graphs.CLIP, graphs.VAE, base)
    return Family(made.loaders(comfy), ["model", 0], ["clip", 0], ["vae", 0], made.model.name)


@dataclass(frozen=True)
class Trained:
    """A LoRA of a family: its name, what the node said, and the prompt's result."""

    family: Family
    file: str
    report: dict[str, Any]
    result: PromptResult


@pytest.fixture(scope="module", params=FAMILIES)
def trained(comfy: ComfyHost, shapes: str, request: pytest.FixtureRequest) -> Trained:
    """Two steps, of SD 1.5 with its text encoder."""
    name = request.param
    of = family(comfy, request, name)
    settings = {
        "text_encoder_train": "yes" if name == "sd15" else "no",
        "network_targets": "attention+ff",
    }
    graph = of.loaders | graphs.training(
        shapes, f"families/{name}", data=DATA, settings=settings, model=of.model, clip=of.clip, vae=of.vae,
        steps=2, learning_rate=0.01,
    )  # fmt: skip
    for each in SIZES:
        graph |= {
            each: graphs.node("LoadImage", image=f"{FOLDER}/{each}.png"),
            f"{each} latent": graphs.node("VAEEncode", pixels=[each, 0], vae=of.vae),
            f"{each} saved": graphs.node("SaveLatent", samples=[f"{each} latent", 0], filename_prefix=f"{name}/{each}"),
        }
    result = comfy.queue(graph)
    text = result.outputs["train"]["text"][0]
    return Trained(of, f"families/{name}.safetensors", json.loads(text.split("\n", 1)[1])[0], result)


def test_it_trains(comfy: ComfyHost, trained: Trained) -> None:
    events = [data for kind, data in trained.result.messages if kind == "loom.train" and data["kind"] == "progress"]
    losses = dict(tuple(one) for event in events for one in event["losses"])
    components = {"denoiser", "text_encoder"} if "sd15" in trained.file else {"denoiser"}

    assert list(losses) == [1, 2]
    assert all(math.isfinite(loss) and loss > 0 for loss in losses.values())
    assert trained.report["components"].keys() == components
    assert trained.report["training"]["checked_modules"] == sum(trained.report["components"].values())
    assert trained.report["training"]["warnings"] == []


def test_all_of_the_file_is_used_by_every_loader(comfy: ComfyHost, trained: Trained) -> None:
    """Ours and the host's own draw the same with it, and it changes what the base draws."""
    of, name = trained.family, trained.file
    both = {"model": of.model, "clip": of.clip, "lora_name": name, "strength_model": 1.0, "strength_clip": 1.0}
    graph = of.loaders | {
        "ours": graphs.node("LoomLoraLoader", **both),
        "core": graphs.node("LoraLoader", **both),
        "handed": graphs.node("LoraModelLoader", model=["core", 0], lora=["ours", 2], strength_model=-1, bypass=False),
        **graphs.shown(["ours", 4], "report"),
    }  # fmt: skip
    for way, clip in {"ours": ["ours", 1], "core": ["core", 1], "handed": of.clip}.items():
        one = graphs.picture([way, 0], clip, steps=1)
        one["decoded"]["inputs"]["vae"] = of.vae
        graph |= graphs.named(one, f"{way} ")
    base = graphs.picture(of.model, of.clip, steps=1)
    base["decoded"]["inputs"]["vae"] = of.vae
    mark = comfy.log_mark()
    result = comfy.queue(graph | graphs.named(base, "base "))
    drawn = {way: comfy.images(result, f"{way} picture")[0].astype(int) for way in ("ours", "core", "handed", "base")}
    (report,) = json.loads(result.outputs["report"]["text"][0])
    tensors = trained.report["tensors"]

    assert tensors["used"] == tensors["total"] > 0
    assert report["tensors"]["used"] == report["tensors"]["total"] == tensors["total"]
    unknown = [line for line in comfy.log(mark).splitlines() if "lora key not loaded" in line]
    assert [line for line in unknown if "lora_te" not in line] == []  # `handed` has no CLIP
    assert np.abs(drawn["ours"] - drawn["base"]).max() > 2
    assert np.abs(drawn["ours"] - drawn["core"]).max() <= 2
    assert np.abs(drawn["handed"] - drawn["base"]).max() <= 2, "taken off again by the host's own node"


def test_pictures_of_all_proportions_are_trained_in_the_scale_of_the_model(comfy: ComfyHost, trained: Trained) -> None:
    """The host's own node leaves the model's scale out where pictures have several proportions."""
    name = trained.file.removeprefix("families/").removesuffix(".safetensors")
    scale = {"sd15": (0.18215, 0.0), "sdxl": (0.13025, 0.0), "flux": (0.3611, 0.1159), "sd3": (1.5305, 0.0609)}[name]
    kept = {}
    for path in (comfy.output / "loom" / "families" / f"{name}.run" / "cache" / "latents").rglob("*.safetensors"):
        with TensorFile(path) as file:
            kept |= {one.shape: one.load() for key, one in file.items() if key == "mean"}
    for each, (width, height) in SIZES.items():
        (saved,) = (comfy.output / name).glob(f"{each}_*.latent")
        with TensorFile(saved) as file:
            encoded = file["latent_tensor"].load()
        expected = (encoded - scale[1]) * scale[0]
        (found,) = (one for shape, one in kept.items() if shape[-2:] == (height // 8, width // 8))
        assert torch.allclose(found.reshape(expected.shape).float(), expected.float(), atol=2e-3), each


def test_the_file_names_the_checkpoint(comfy: ComfyHost, trained: Trained) -> None:
    with TensorFile(comfy.loras / trained.file) as file:
        said = dict(file.metadata)

    assert said["ss_sd_model_name"] == trained.family.base
    assert len(said["ss_new_sd_model_hash"]) == 64
    assert json.loads(said["ss_bucket_info"])["buckets"].keys() == {"0", "1"}
    assert str(comfy.base_directory) not in json.dumps(said)


def test_a_vae_of_another_family_is_told_in_one_line(
    comfy: ComfyHost, shapes: str, request: pytest.FixtureRequest
) -> None:
    of = family(comfy, request, "sd15")
    other = {"vae": family(comfy, request, "flux").loaders["vae"]}
    graph = graphs.training(shapes, "families/mixed", data=DATA, vae=["vae", 0])
    with pytest.raises(HostPromptError) as caught:
        comfy.queue(of.loaders | other | graph)

    line = caught.value.exception_message
    assert caught.value.node_id == "train"
    assert "\n" not in line
    assert "makes latents of 16 channels, and the MODEL takes 4: connect the VAE of this model" in line
