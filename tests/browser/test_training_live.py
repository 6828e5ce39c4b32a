"""A real training in the host, seen in the page while it runs, and stopped."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

import graphs
from browser.loom_page import LoomPage
from browser.training_view import TrainingView
from host_harness.host import ComfyHost

pytestmark = pytest.mark.browser

# Of the demo's pictures few are enough to look at.
FEW = {"select": "split = train\ngroup = Animals & Nature\ncore = true", "validation_split": 0.1}
EMOJI = "Loom Demo: High-Contrast emoji (built in)"


@pytest.fixture(scope="module", autouse=True)
def cleared(comfy: ComfyHost) -> Iterator[None]:
    """No other test finds these runs."""
    yield
    shutil.rmtree(comfy.output / "loom" / "browser", ignore_errors=True)
    shutil.rmtree(comfy.loras / "browser", ignore_errors=True)


def load(loom: LoomPage, graph: graphs.Graph) -> None:
    """A graph in the API's form, so that LoRA Train is seen."""
    loom.page.evaluate(
        """async (graph) => {
            await app.loadApiJson(graph, "training");
            const { pos } = app.graph._nodes.find((node) => node.comfyClass === "LoomLoraTrain");
            app.canvas.ds.scale = 1;
            app.canvas.ds.offset = [420 - pos[0], 120 - pos[1]];
            app.canvas.setDirty(true, true);
        }""",
        graph,
    )


def training(name: str, steps: int, rank: int = 2, **settings: object) -> graphs.Graph:
    settings = {"samples_prompts": "ghost\nred heart", "samples_every": 4, "run_batch": 2, **settings}
    return graphs.demo() | graphs.training(EMOJI, name, data=FEW, settings=settings, steps=steps, rank=rank)


def test_a_training_is_seen_in_its_node_while_it_runs(loom_canvas: LoomPage) -> None:
    view, page = TrainingView(loom_canvas), loom_canvas.page
    load(loom_canvas, training("browser/live", 12))
    node = page.evaluate("app.graph._nodes.find((node) => node.comfyClass === 'LoomLoraTrain').id")
    part = view.parts().first
    expect(part).to_contain_text("Its curve and samples will be here.")
    page.get_by_test_id("queue-button").click()

    expect(part).to_contain_text(re.compile(r"step \d+ of 12"), timeout=60_000)
    expect(part.get_by_role("progressbar")).to_be_visible()
    expect(part.get_by_role("button", name="Stop the training")).to_be_visible()
    expect(part.locator("canvas")).to_be_visible()
    expect(part.get_by_text("12 steps", exact=True)).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Training finished")).to_be_visible()

    slider = part.get_by_role("slider", name="Step of the samples")
    expect(slider).to_have_attribute("aria-valuetext", "step 12")
    slider.press("Home")
    expect(part.get_by_role("status").or_(part.locator("output")).last).to_have_text("step 4")
    picture = part.get_by_role("button", name="Enlarge: ghost").locator("img")
    expect(picture).to_have_attribute("src", re.compile("live-000004-0.png"))
    page.wait_for_function("() => app.graph._nodes.every((node) => !node.imgs)")
    loom_canvas.shot("training_node_litegraph")

    # Nothing of it is in the graph, in neither form.
    assert "training" not in loom_canvas.prompt()[str(node)]["inputs"]
    (saved,) = [one for one in loom_canvas.saved()["nodes"] if one["id"] == node]
    assert len(saved["widgets_values"]) == 5


def test_a_training_is_stopped_from_its_node(loom_vue: LoomPage, comfy: ComfyHost) -> None:
    view, page = TrainingView(loom_vue), loom_vue.page
    load(loom_vue, training("browser/stopped", 5000, samples_every=0))
    page.get_by_test_id("queue-button").click()
    part = view.parts().first
    expect(part).to_contain_text(re.compile(r"step \d+ of 5000"), timeout=60_000)

    part.get_by_role("button", name="Stop the training").click()
    expect(page.get_by_text(re.compile("When the graph runs again it goes on"))).to_be_visible()
    page.get_by_role("button", name="Confirm").click()

    expect(part).to_contain_text(re.compile(r"stopped at step \d+ of 5000"), timeout=60_000)
    (run,) = [one for one in comfy.get("/loom/runs")["runs"] if one["run"] == "browser/stopped"]
    assert 0 < run["step"] < 5000
    assert run["lora"] == f"browser/stopped-{run['step']:06}.safetensors"
    assert not run["finished"]


@pytest.fixture(scope="module")
def compared(comfy: ComfyHost) -> tuple[str, str]:
    """Two real runs; for the pictures of the README longer ones."""
    readme = os.environ.get("LOOM_WRITE") == "1"
    steps, every = (300, 100) if readme else (4, 2)
    quality = {"samples_steps": 20, "samples_guidance": 3.0, "run_batch": 4} if readme else {}
    names = "browser/emoji_rank16", "browser/emoji_rank4"
    for name, rank in zip(names, (16, 4), strict=True):
        comfy.queue(training(name, steps, rank, samples_every=every, **quality), timeout=1200)
    return names


def test_real_runs_are_compared(loom_vue: LoomPage, compared: tuple[str, str]) -> None:
    view, (one, other) = TrainingView(loom_vue), compared
    _, part = view.node(name=one)
    expect(part.get_by_role("img", name=f"Chart of losses. {one}")).to_be_visible()
    expect(part.get_by_role("button", name="Enlarge: ghost")).to_be_visible()
    loom_vue.shot("train_node", loom_vue.page.locator(".lg-node"), readme=True)

    view.open()
    view.select(one)
    view.overlay(other)
    expect(view.legend).to_have_text([one, other])
    loom_vue.shot("training", view.panel, readme=True)
    view.close()
