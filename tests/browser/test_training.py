"""Training to look at, in LoRA Train and in the bottom panel: past runs, and what events tell."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from browser.loom_page import LoomPage
from browser.made_runs import write_run
from browser.training_view import TrainingView
from host_harness.host import ComfyHost

pytestmark = pytest.mark.browser

# The stroke of a curve, as the canvas of the chart has it.
PIXELS = "(element) => element.querySelector('canvas').toDataURL()"


@pytest.fixture(scope="module")
def runs(comfy: ComfyHost) -> Iterator[Path]:
    """Three past runs: two of a style that differ in rank, one that was stopped, its name longer than its place."""
    folder = comfy.output / "loom"
    write_run(folder, "emoji_rank4", low=0.115, rank=4, hours_ago=26, seed=1)
    write_run(folder, "emoji_rank16", low=0.085, rank=16, hours_ago=3, seed=2)
    long = "a_run_whose_name_is_much_longer_than_any_place_that_it_could_have_in_a_list"
    write_run(folder / "styles", long, done=420, hours_ago=60, seed=3)
    yield folder
    for run in folder.rglob("*.run"):
        shutil.rmtree(run)


@pytest.fixture
def view(loom: LoomPage, runs: Path) -> Iterator[TrainingView]:
    """In both renderers of nodes."""
    view = TrainingView(loom)
    yield view
    view.close()


@pytest.fixture
def panel(loom_canvas: LoomPage, runs: Path) -> Iterator[TrainingView]:
    """The panel, with all runs in it."""
    view = TrainingView(loom_canvas)
    view.open()
    expect(view.runs.first).to_be_visible()
    yield view
    view.close()


# In the node


def test_a_node_shows_the_run_of_its_name(view: TrainingView) -> None:
    node, part = view.node(name="not_trained_yet")
    expect(part).to_contain_text("Its curve and samples will be here.")
    view.loom.set_widget(node, "name", "emoji_rank16")

    expect(part).to_contain_text("1500 steps")
    expect(part.get_by_role("img", name="Chart of losses. emoji_rank16")).to_be_visible()
    expect(part.get_by_role("button", name="Enlarge: ghost")).to_be_visible()
    expect(part.get_by_role("button", name="Stop the training")).to_be_hidden()
    assert view.page.evaluate("(id) => app.graph.getNodeById(id).size[1]", node) < 700
    if view.loom.vue:
        view.loom.shot("training_node_vue", view.page.locator(".lg-node"))


def test_a_node_of_a_loaded_workflow_finds_its_run(view: TrainingView) -> None:
    node, _ = view.node(name="emoji_rank4.safetensors")
    view.loom.load(view.loom.saved())
    expect(view.parts()).to_have_count(1)
    expect(view.parts()).to_contain_text("1500 steps")
    assert view.loom.widget(node, "name") == "emoji_rank4.safetensors"


# In the panel


def test_past_runs_are_listed_newest_first(panel: TrainingView) -> None:
    names = [row.get_attribute("data-run") or "" for row in panel.runs.all()]
    assert [name for name in names if name.startswith("emoji")] == ["emoji_rank16", "emoji_rank4"]
    assert names[-1].startswith("styles/a_run_whose_name")
    expect(panel.run("emoji_rank16")).to_contain_text("1500 steps · loss 0.0")
    expect(panel.runs.last).to_contain_text("stopped at step 420 of 1500")
    panel.loom.shot("training_list", panel.panel)


def test_runs_are_compared_by_laying_one_over_the_other(panel: TrainingView) -> None:
    panel.select("emoji_rank16")
    expect(panel.chart).to_have_attribute("aria-label", re.compile("emoji_rank16: training loss from .* at step 1500"))
    expect(panel.panel.get_by_text("0.0001 (adamw)")).to_be_visible()
    panel.overlay("emoji_rank4")

    expect(panel.legend).to_have_text(["emoji_rank16", "emoji_rank4"])
    expect(panel.chart).to_have_attribute("aria-label", re.compile("emoji_rank4: training loss"))
    expect(panel.panel.get_by_role("button", name=re.compile("Enlarge: ghost, emoji_rank4, step 1500"))).to_be_visible()
    panel.slider.press("Home")
    panel.slider.press("ArrowRight")
    expect(panel.panel.get_by_role("button", name=re.compile("Enlarge: ghost, emoji_rank4, step 500"))).to_be_visible()
    panel.slider.press("End")
    panel.slider.blur()
    panel.loom.shot("training_overlay", panel.panel)

    panel.run("emoji_rank4").get_by_role("checkbox").uncheck()
    expect(panel.legend).to_have_count(0)


def test_the_chart_looks_as_its_user_wants(panel: TrainingView) -> None:
    panel.select("emoji_rank16")
    plot = panel.panel.locator(".loom-training-plot")
    expect(plot.locator("canvas")).to_be_visible()
    pictures = [plot.evaluate(PIXELS)]
    panel.panel.get_by_label("Log scale").check()
    pictures.append(plot.evaluate(PIXELS))
    panel.panel.get_by_label("Learning rate").check()
    pictures.append(plot.evaluate(PIXELS))
    panel.panel.get_by_label("Smoothing").press("Home")
    pictures.append(plot.evaluate(PIXELS))
    assert len(set(pictures)) == 4
    panel.panel.get_by_label("Smoothing").fill("0.95")
    panel.panel.get_by_label("Log scale").uncheck()
    panel.panel.get_by_label("Learning rate").uncheck()


def test_the_numbers_under_the_pointer_are_told(panel: TrainingView) -> None:
    panel.select("emoji_rank16")
    box = panel.chart.bounding_box()
    assert box
    panel.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(panel.panel.locator(".loom-training-readout")).to_contain_text(re.compile(r"step \d+ .* mean 0\.\d+"))


def test_the_chart_follows_the_theme(panel: TrainingView) -> None:
    panel.select("emoji_rank16")
    panel.overlay("emoji_rank4")
    plot = panel.panel.locator(".loom-training-plot")
    dark = plot.evaluate(PIXELS)
    panel.page.evaluate("app.extensionManager.setting.set('Comfy.ColorPalette', 'light')")
    try:
        panel.page.wait_for_function(
            "([element, dark]) => element.querySelector('canvas').toDataURL() !== dark",
            arg=[plot.element_handle(), dark],
        )
        panel.loom.shot("training_light")
    finally:
        panel.page.evaluate("app.extensionManager.setting.set('Comfy.ColorPalette', 'dark')")
    panel.page.wait_for_function(
        "([element, dark]) => element.querySelector('canvas').toDataURL() === dark", arg=[plot.element_handle(), dark]
    )
    panel.run("emoji_rank4").get_by_role("checkbox").uncheck()


def test_a_sample_is_enlarged_and_arrow_keys_go_on_to_the_next_prompt(panel: TrainingView) -> None:
    panel.select("emoji_rank16")
    picture = panel.panel.get_by_role("button", name="Enlarge: ghost")
    picture.click()
    dialog = panel.page.get_by_role("dialog", name="Sample, emoji_rank16, step 1500")
    expect(dialog).to_contain_text("ghost")
    panel.page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text("red heart")
    panel.loom.shot("training_enlarged")
    panel.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(picture).to_be_focused()


def test_keys_in_the_panel_are_not_the_graphs(panel: TrainingView) -> None:
    node = panel.loom.add_node("LoomLoraLoader")
    panel.page.evaluate("(id) => app.canvas.selectNode(app.graph.getNodeById(id))", node)
    panel.select("emoji_rank16")
    panel.slider.press("Delete")
    panel.run("emoji_rank16").get_by_role("button").press("Delete")
    assert str(node) in panel.loom.prompt()


def test_a_training_that_others_began_is_shown_too(panel: TrainingView) -> None:
    panel.tell("stage", what="caching latents", done=12, total=40)
    expect(panel.runs.first).to_contain_text("caching latents 12/40")
    panel.tell("warning", text="3 pictures are smaller than the resolution")
    panel.tell_steps(1, 10)
    panel.select("told")
    expect(panel.panel.locator("header")).to_contain_text("step 10 of 40, 1 h 02 min left")
    for fact in ("2.0 s/it", "7.0 GB", "1 h 02 min"):
        expect(panel.panel.locator(".loom-training-facts")).to_contain_text(fact)
    expect(panel.panel.get_by_role("alert")).to_have_text("3 pictures are smaller than the resolution")
    expect(panel.panel.locator("header").get_by_role("button", name="Stop")).to_be_visible()
    panel.loom.shot("training_told", panel.panel)

    panel.tell("ended", finished=False, step=None)
    expect(panel.panel.get_by_text("It ended with an error")).to_be_visible()
    expect(panel.panel.locator("header").get_by_role("button", name="Stop")).to_be_hidden()


def test_what_a_late_page_missed_is_read_from_disk(panel: TrainingView) -> None:
    panel.tell_steps(1501, 1510, steps=3000, run="emoji_rank16")
    panel.select("emoji_rank16")
    first = re.compile(r"emoji_rank16: training loss from \S+ at step 1 to \S+ at step 1510")
    expect(panel.chart).to_have_attribute("aria-label", first)
    panel.tell("ended", "emoji_rank16", finished=False, step=1510)
    expect(panel.run("emoji_rank16")).to_contain_text("1500 steps")


def test_a_lora_of_a_run_goes_into_the_graph(panel: TrainingView, comfy: ComfyHost) -> None:
    place = comfy.loras / "emoji_rank16.safetensors"
    shutil.copy(next((comfy.pack / "demo" / "loras").glob("*.safetensors")), place)
    try:
        panel.panel.get_by_role("button", name="Read the runs again").click()
        panel.select("emoji_rank16")
        panel.panel.get_by_role("button", name="Use in graph").click()
        (loader,) = panel.loom.prompt().values()
        assert loader["class_type"] == "LoomLoraLoader"
        assert loader["inputs"]["lora_name"] == "emoji_rank16.safetensors"
    finally:
        place.unlink()


def answer(page: Page, status: int, body: str) -> None:
    """What the page gets instead of the list of runs."""

    def fulfil(route: Route) -> None:
        route.fulfill(status=status, content_type="application/json", body=body)

    page.route("**/loom/runs*", fulfil)


def test_without_a_run_the_panel_says_how_to_begin(loom_canvas: LoomPage) -> None:
    view = TrainingView(loom_canvas)
    answer(loom_canvas.page, 200, '{"runs": []}')
    try:
        view.open()
        expect(view.panel.get_by_role("heading", name="No training yet")).to_be_visible()
        loom_canvas.shot("training_empty", view.panel)
    finally:
        loom_canvas.page.unroute("**/loom/runs*")
        view.close()


def test_a_list_that_cannot_be_had_is_told_and_tried_again(loom_canvas: LoomPage, runs: Path) -> None:
    view = TrainingView(loom_canvas)
    answer(loom_canvas.page, 400, '{"error": "the disk says: Input/output error"}')
    view.open()
    expect(view.panel.get_by_role("alert")).to_contain_text("The runs cannot be listed: the disk says")
    loom_canvas.shot("training_error", view.panel)
    loom_canvas.page.unroute("**/loom/runs*")
    view.panel.get_by_role("button", name=re.compile("again")).last.click()
    expect(view.run("emoji_rank16")).to_be_visible()
    assert all("400" in one for one in loom_canvas.complaints())  # the browser's own
    view.close()
