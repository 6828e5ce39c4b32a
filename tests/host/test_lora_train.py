"""LoRA Train in the host: what it trains draws the style, runs are gone on with, and nobody trains twice."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import graphs
from demo.measure import dark_fraction, rises, saturation
from host_harness.host import ComfyHost
from host_harness.prompts import HostPromptError, PromptResult
from lora_core.io import TensorFile
from painted import paint_some

pytestmark = pytest.mark.host

Pixels = NDArray[np.uint8]
EMOJI = "Loom Demo: High-Contrast emoji (built in)"
THINGS = "training/things"
# None of them is among the pictures of STYLE.
CAPTIONS = ("red heart", "sailboat", "ghost")
# Thirty steps are enough to see the style: 32 pictures, all timesteps alike, a rate that a longer run could not stand.
STYLE = {
    "data": {"select": "split = train\ngroup = Animals & Nature\ncore = true", "validation_split": 0.0},
    "settings": {
        "run_batch": 2,
        "network_targets": "(preset)",
        "network_conv_rank": -1,
        "samples_prompts": "",
        "output_plot": "(preset)",
        "objective_weighting": "none",
        "optimizer_schedule": "constant",
    },
}
STEPS = 30


def pictures(prefix: str, model: list[Any], clip: list[Any] = graphs.CLIP, captions: int = 1) -> graphs.Graph:
    """Two pictures a caption."""
    found: graphs.Graph = {}
    for number, caption in enumerate(CAPTIONS[:captions]):
        one = graphs.picture(model, clip, text=caption, steps=4, seed=number)
        one["latent"]["inputs"]["batch_size"] = 2
        found |= graphs.named(one, f"{prefix} {number} ")
    return found


def seen(comfy: ComfyHost, result: PromptResult, prefix: str) -> Pixels:
    """All of these pictures, (number, height, width, 3)."""
    saved = [name for name in result.outputs if name.startswith(prefix) and name.endswith(" picture")]
    return np.stack([picture for name in sorted(saved) for picture in comfy.images(result, name)])


def apart(one: Pixels, other: Pixels) -> int:
    """The largest difference of pictures, of 255; of as many as both have."""
    return max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(one, other, strict=False))


def events(result: PromptResult, kind: str = "") -> list[dict[str, Any]]:
    """What the page is told of a training, of one kind or all."""
    return [data for name, data in result.messages if name == "loom.train" and kind in ("", data["kind"])]


def steps(result: PromptResult) -> list[int]:
    """Those that were trained."""
    return [step for event in events(result, "progress") for step, _ in event["losses"]]


def notes(result: PromptResult) -> str:
    return "\n".join(event["text"] for kind in ("note", "warning") for event in events(result, kind))


def report(result: PromptResult) -> dict[str, Any]:
    name, text = result.outputs["train"]["text"][0].split("\n", 1)
    (found,) = json.loads(text)
    assert name.endswith(found["file"])
    return found


def listed(comfy: ComfyHost) -> list[str]:
    """The LoRAs that can be chosen in LoRA Loader."""
    return comfy.object_info("LoomLoraLoader")["input"]["required"]["lora_name"][1]["options"]


def drawn(comfy: ComfyHost) -> Pixels:
    """A picture of the base, made anew."""
    result = comfy.queue(graphs.demo() | graphs.picture(text="sailboat", steps=2))
    assert "sampler" in result.executed
    (found,) = comfy.images(result, "picture")
    return found


@dataclass(frozen=True)
class Style:
    """A training and its use in one prompt.

    Args:
        result: of the prompt.
        before: LoRAs that could be chosen before it.
        base, half, full, none: pictures of no LoRA, and with ours at strength 0.5, 1 and 0, of all captions but none.
        core: with the host's own loader at strength 1.
        stacked: with LoRA Stack, by the file's name.
        saved: with what Save LoRA wrote.
    """

    result: PromptResult
    before: Sequence[str]
    base: Pixels
    half: Pixels
    full: Pixels
    none: Pixels
    core: Pixels
    stacked: Pixels
    saved: Pixels


@pytest.fixture(scope="module")
def style(comfy: ComfyHost) -> Style:
    graph = graphs.demo() | graphs.training(
        EMOJI, "style/high_contrast", steps=STEPS, rank=8, learning_rate=4e-3, **STYLE
    )
    for name, strength in {"none": 0.0, "half": 0.5, "full": 1.0}.items():
        graph[name] = graphs.node(
            "LoomLoraLoader", model=graphs.MODEL, clip=graphs.CLIP, lora_name=["train", 1], strength_model=strength,
            strength_clip=strength,
        )  # fmt: skip
        graph |= pictures(name, [name, 0], [name, 1], 3 if strength else 1)
    graph |= {
        "core": graphs.node("LoraModelLoader", model=graphs.MODEL, lora=["train", 0], strength_model=1.0, bypass=False),
        "save": graphs.node(
            "LoomSaveLora", lora_model=["train", 0], filename="style/saved", format="diffusers", dtype="same"
        ),
        "saved": graphs.node(
            "LoomLoraLoader", model=graphs.MODEL, lora_name=["save", 0], strength_model=1.0, strength_clip=1.0
        ),
        "plot": graphs.node("SaveImage", images=["train", 2], filename_prefix="plot"),
        "samples": graphs.node("SaveImage", images=["train", 3], filename_prefix="samples"),
        **graphs.shown(["train", 4], "report"),
        **pictures("base", graphs.MODEL, captions=3),
        **pictures("core", ["core", 0]),
        **pictures("saved", ["saved", 0]),
    }  # fmt: skip
    before = listed(comfy)
    result = comfy.queue(graph)
    rows = json.dumps([{"lora": "style/high_contrast.safetensors"}])
    stack = {"lora": graphs.node("LoomLoraStack", model=graphs.MODEL, clip=graphs.CLIP, rows=rows)}
    stacked = comfy.queue(graphs.demo() | stack | pictures("stacked", ["lora", 0], ["lora", 1]))
    drawn = {name: seen(comfy, result, name) for name in ("base", "half", "full", "none", "core", "saved")}
    return Style(result, before, stacked=seen(comfy, stacked, "stacked"), **drawn)


@pytest.fixture(scope="module")
def things(comfy: ComfyHost) -> str:
    """The name of a folder with four pictures."""
    paint_some(comfy.input / THINGS, 4)
    return THINGS


# What was trained


def test_the_style_grows_with_the_strength(style: Style) -> None:
    """The pictures to learn from are black and white, the base's are not."""
    strengths = [torch.from_numpy(one).movedim(-1, 1) / 127.5 - 1 for one in (style.base, style.half, style.full)]
    dark, colour = [dark_fraction(one) for one in strengths], [saturation(one) for one in strengths]

    assert rises(dark), dark
    assert rises([-one for one in colour]), colour
    assert dark[-1] > dark[0] + 0.05
    assert colour[-1] < colour[0] - 0.05


def test_at_strength_0_it_is_the_base(style: Style) -> None:
    assert apart(style.none, style.base) == 0


def test_all_ways_to_load_it_draw_the_same(style: Style) -> None:
    """LoRA Loader in the same prompt, LoRA Stack in the next one, the host's own loader, and a copy by Save LoRA."""
    assert apart(style.full, style.base) > 50
    assert apart(style.stacked, style.full) <= 1
    assert apart(style.core, style.full) <= 2
    assert apart(style.saved, style.full) <= 2


def test_loaders_list_it_at_once(comfy: ComfyHost, style: Style) -> None:
    assert "style/high_contrast.safetensors" not in style.before
    assert "style/high_contrast.safetensors" in listed(comfy)
    assert report(style.result)["file"] == "high_contrast.safetensors"


def test_the_report_tells_of_the_lora_and_of_its_training(comfy: ComfyHost, style: Style) -> None:
    found = report(style.result)
    (same,) = json.loads(style.result.outputs["report"]["text"][0])
    training = found["training"]

    assert same == found
    assert found["architecture"] == "loom_demo"
    assert found["tensors"]["used"] == found["tensors"]["total"] > 0
    assert found["ranks"].keys() == {"8"}
    assert training["pictures"] == 32
    assert training["epochs"] == pytest.approx(STEPS * 2 / 32, abs=0.01)
    assert training["checked_modules"] == sum(found["components"].values())
    assert training["warnings"] == []
    assert re.fullmatch(r"modules: \d+ in denoiser; [\d,]+ parameters of .*", training["notes"][0])
    assert training["run"] == "loom/style/high_contrast.run"
    for folder in (comfy.base_directory, comfy.repository, comfy.environment.comfy):
        assert str(folder) not in json.dumps(found), "a place on this machine"


def test_pictures_of_the_run(comfy: ComfyHost, style: Style) -> None:
    """As IMAGE, on the node, and in the run's folder through the host's /view."""
    (plot,) = comfy.images(style.result, "plot")
    samples = comfy.images(style.result, "samples")
    shown = style.result.outputs["train"]["images"]

    assert plot.shape[0] > 200
    assert plot.shape[1] > 300
    assert plot.std() > 5
    assert [sample.shape for sample in samples] == [(64, 64, 3)] * 2
    assert shown[0] == {"filename": "loss.png", "subfolder": "loom/style/high_contrast.run", "type": "output"}
    for one, same in zip(shown, [plot, *samples], strict=True):
        assert apart(comfy.view(one), same) == 0


def test_the_file_says_what_it_is(comfy: ComfyHost, things: str) -> None:
    """The host's own node knows neither alpha nor metadata."""
    graph = graphs.training(things, "runs/alpha", rank=4, settings={"network_alpha": 3.0})
    comfy.queue(graphs.demo() | graph)
    with TensorFile(comfy.loras / "runs" / "alpha.safetensors") as file:
        said = dict(file.metadata)
        alphas = {float(one.load()) for key, one in file.items() if key.endswith(".alpha")}

    assert alphas == {3.0}
    assert (said["ss_network_alpha"], said["ss_network_dim"], said["ss_steps"]) == ("3.0", "4", "2")
    assert json.loads(said["ss_tag_frequency"]) == {"things": {f"thing {number}": 1 for number in range(4)}}
    assert said["modelspec.title"] == "alpha"
    assert said["modelspec.resolution"] == "64x64"
    assert said["modelspec.prediction_type"] == "v"
    assert said["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert str(comfy.base_directory) not in json.dumps(said)


def test_two_trainings_leave_the_base_as_it_was(comfy: ComfyHost, things: str) -> None:
    before = drawn(comfy)
    both = graphs.training(things, "runs/one", settings={"text_encoder_train": "yes", "network_targets": "(preset)"})
    both |= graphs.named(graphs.training(things, "runs/two", settings={"network_type": "dora"}), "second ")
    result = comfy.queue(graphs.demo() | both)

    assert {"train", "second train"} <= set(result.executed)
    assert report(result)["components"].keys() == {"denoiser", "text_encoder"}
    assert {"runs/one.safetensors", "runs/two.safetensors"} <= set(listed(comfy))
    assert apart(drawn(comfy), before) == 0


# What it tells while it runs


def test_the_page_is_told_of_every_step(comfy: ComfyHost, style: Style) -> None:
    result = style.result
    named = {(event["node"], event["run"], event["lora"]) for event in events(result)}
    assert named == {("train", "style/high_contrast", "style/high_contrast.safetensors")}
    assert [event["kind"] for event in events(result)][-1] == "ended"

    assert {"caching latents", "caching text", "training", "saving"} <= {one["what"] for one in events(result, "stage")}
    assert steps(result) == list(range(1, STEPS + 1))
    for event in events(result, "progress"):
        assert event["steps"] == STEPS
        assert all(math.isfinite(loss) for _, loss in event["losses"])
        assert event["rates"]
        assert event["steps_per_second"] > 0
    (sampled,) = events(result, "sampled")
    assert sampled["step"] == STEPS
    assert [comfy.view(image).shape for image in sampled["images"]] == [(64, 64, 3)] * 2
    assert len({image["prompt"] for image in sampled["images"]}) == 2
    (saved,) = events(result, "saved")
    assert (saved["step"], saved["name"]) == (STEPS, "style/high_contrast.safetensors")
    (ended,) = events(result, "ended")
    assert (ended["finished"], ended["step"]) == (True, STEPS)


def test_the_nodes_bar_reaches_its_end_and_shows_the_loss(style: Style) -> None:
    assert ("train", STEPS, STEPS) in style.result.progress
    assert any(b"\xff\xd8\xff" in preview for preview in style.result.previews), "no JPEG"


# Again


@pytest.fixture(scope="module")
def again(comfy: ComfyHost, things: str) -> dict[str, PromptResult]:
    """A graph for the first time, at once again, when the host has forgotten it, and with another setting."""
    graph = graphs.demo() | graphs.training(things, "runs/again")
    found = {"first": comfy.queue(graph), "kept": comfy.queue(graph)}
    comfy.queue(graphs.demo() | graphs.shown(graphs.VAE))  # the host keeps the last prompt's results alone
    found["later"] = comfy.queue(graph)
    silent = graphs.training(things, "runs/again", settings={"samples_negative": "blue"})
    return found | {"silent": comfy.queue(graphs.demo() | silent)}


def test_run_again_unchanged_it_does_not_train_again(again: dict[str, PromptResult]) -> None:
    assert steps(again["first"]) == [1, 2]
    assert "train" in again["kept"].cached
    assert "train" in again["later"].executed
    assert steps(again["later"]) == []
    assert notes(again["later"]).startswith("finished already, at step 2")
    assert report(again["later"])["hashes"] == report(again["first"])["hashes"]


def test_a_setting_that_changes_no_step_trains_nothing(again: dict[str, PromptResult]) -> None:
    assert "train" in again["silent"].executed
    assert steps(again["silent"]) == []


def test_notes_are_in_the_words_of_the_node(again: dict[str, PromptResult]) -> None:
    said = notes(again["later"]) + again["later"].outputs["train"]["text"][0]
    assert "give more steps to train on, another name, or set resume to never" in said
    assert "--fresh" not in said


def test_a_lora_that_no_run_made_is_not_written_over(comfy: ComfyHost, things: str) -> None:
    place = comfy.loras / "runs" / "precious.safetensors"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"precious")

    for resume in ("auto", "never"):
        with pytest.raises(HostPromptError, match="no run of this name made it; give another name") as caught:
            comfy.queue(graphs.demo() | graphs.training(things, "runs/precious", resume=resume))
        assert str(comfy.base_directory) not in caught.value.exception_message
    assert place.read_bytes() == b"precious"


def test_more_steps_go_on_and_never_begins_anew(comfy: ComfyHost, things: str) -> None:
    comfy.queue(graphs.demo() | graphs.training(things, "runs/more"))
    more = comfy.queue(graphs.demo() | graphs.training(things, "runs/more", steps=3, resume="must"))
    other = comfy.queue(graphs.demo() | graphs.training(things, "runs/more", steps=3, rank=3, resume="never"))

    assert steps(more) == [3]
    assert "going on from step 2 of 3" in notes(more)
    assert steps(other) == [1, 2, 3]
    assert report(other)["ranks"].keys() == {"3"}


def test_a_lora_that_was_deleted_is_written_again(comfy: ComfyHost, things: str) -> None:
    graph = graphs.demo() | graphs.training(things, "runs/deleted")
    first = report(comfy.queue(graph))
    path = comfy.loras / "runs" / "deleted.safetensors"
    path.unlink()
    again = comfy.queue(graph)

    assert path.is_file()
    assert steps(again) == []
    assert report(again)["hashes"]["autov3"] == first["hashes"]["autov3"]


def test_cancelled_it_keeps_what_it_has_and_goes_on(comfy: ComfyHost, things: str) -> None:
    graph = graphs.demo() | graphs.training(things, "runs/cancelled", steps=40)
    running = comfy.submit(graph)
    assert running.wait_for(lambda kind, data: kind == "loom.train" and data["kind"] == "progress" and data["step"] > 1)
    comfy.interrupt()
    with pytest.raises(HostPromptError) as caught:
        running.wait()
    done = steps(running.result)[-1]

    assert caught.value.interrupted
    assert 2 <= done < 40
    assert (comfy.loras / "runs" / f"cancelled-{done:06}.safetensors").is_file()
    assert not (comfy.loras / "runs" / "cancelled.safetensors").exists()
    assert any((comfy.output / "loom" / "runs" / "cancelled.run" / "state").iterdir())
    assert events(running.result, "saved")[-1]["name"] == f"runs/cancelled-{done:06}.safetensors" in listed(comfy)
    assert not events(running.result, "ended")[-1]["finished"]

    again = comfy.queue(graph)
    assert steps(again) == list(range(done + 1, 41))
    assert f"going on from step {done} of 40" in notes(again)
    assert report(again)["training"]["epochs"] == 10
    assert events(again, "ended")[-1]["finished"]
