"""LoRA Train Settings: its many inputs are folded, and keep their values."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from browser.loom_page import LoomPage

pytestmark = pytest.mark.browser

INPUTS = "(id) => app.graph.getNodeById(id).widgets.filter((one) => one.serialize !== false).map((one) => one.name)"


def height(loom: LoomPage, node: int) -> float:
    return loom.page.evaluate("(id) => app.graph.getNodeById(id).size[1]", node)


def unfold(loom: LoomPage, node: int) -> None:
    """As a user does: the button below the inputs, the pack's in LiteGraph, the host's in Nodes 2.0."""
    if loom.vue:
        loom.page.get_by_test_id("advanced-inputs-button").click()
        return
    place = loom.page.evaluate(
        """(id) => {
            const node = app.graph.getNodeById(id);
            const button = node.widgets.at(-1);
            const place = [node.pos[0] + node.size[0] / 2, node.pos[1] + button.y + 10];
            const [x, y] = app.canvas.ds.convertOffsetToCanvas(place);
            const box = app.canvas.canvas.getBoundingClientRect();
            return [box.x + x, box.y + y];
        }""",
        node,
    )
    loom.page.mouse.click(*place)


def test_a_fresh_node_is_no_higher_than_a_window(loom: LoomPage) -> None:
    node = loom.add_node("LoomTrainSettings", at=(420, 80))
    assert height(loom, node) < 800
    loom.shot(f"train_settings_{'vue' if loom.vue else 'litegraph'}")


def test_what_is_folded_is_in_the_prompt_all_the_same(loom: LoomPage) -> None:
    node = loom.add_node("LoomTrainSettings", at=(420, 80))
    loom.set_widget(node, "objective_gamma", 3)
    names = loom.page.evaluate(INPUTS, node)
    inputs = loom.prompt()[str(node)]["inputs"]
    assert len(names) > 80
    assert set(inputs) == set(names)
    assert inputs["objective_gamma"] == 3


def test_a_button_unfolds_them_and_the_graph_keeps_that(loom: LoomPage) -> None:
    node = loom.add_node("LoomTrainSettings", at=(420, 80))
    loom.set_widget(node, "objective_gamma", 3)
    before, prompt = height(loom, node), loom.prompt()
    unfold(loom, node)
    loom.wait_for("([id, before]) => app.graph.getNodeById(id).size[1] > 2 * before", [node, before])
    assert loom.prompt() == prompt

    loom.load(loom.saved())
    loom.wait_for("([id, before]) => app.graph.getNodeById(id).size[1] > 2 * before", [node, before])
    assert loom.widget(node, "objective_gamma") == 3
    assert loom.prompt() == prompt


def test_numbers_have_the_digits_that_they_have(loom: LoomPage) -> None:
    node = loom.add_node("LoomLoraTrain", at=(420, 80))
    shown = "(id) => app.graph.getNodeById(id).widgets.find((one) => one.name === 'learning_rate')._displayValue"
    loom.set_widget(node, "learning_rate", 0)
    assert loom.page.evaluate(shown, node) == "0"
    loom.set_widget(node, "learning_rate", 0.00015)
    assert loom.page.evaluate(shown, node) == "0.00015"
    if loom.vue:
        field = (
            loom.page.locator(".lg-node")
            .get_by_role("spinbutton", name="learning_rate")
            .or_(loom.page.locator(".lg-node input").nth(3))
        )
        expect(field.first).to_have_value("0.00015")
        field.first.fill("0.0004")
        field.first.press("Enter")
        loom.wait_for("(id) => app.graph.getNodeById(id).widgets[3].value === 0.0004", node)
