"""The rows in the host's hands: its undo, copies of nodes, files, the API's form, subgraphs and bypassed nodes."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from browser.loom_page import LoomPage
from browser.rows_view import RowsView, row, rows_node

pytestmark = pytest.mark.browser

INK, RAIN = (
    row("styles/ink.safetensors", model=0.8),
    row("rain.safetensors", clip=0, blocks="mid=0", hash="0123456789ab"),
)
MODEL = "(want) => app.graph.nodes[0]?.widgets[0].value[0]?.model === want"


def shown(loom: LoomPage, node: int) -> RowsView:
    """The rows of a node that was made by the host."""
    view = RowsView(loom, node, loom.page.get_by_role("group", name="LoRA rows").last)
    expect(view.element).to_be_visible()
    return view


def test_undo_takes_each_change_back_and_redo_brings_it_again(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, RAIN])
    rows.toggle(0).click()
    rows.strength(0).click()
    loom.page.keyboard.type("0.5")
    loom.page.keyboard.press("Enter")
    rows.control(1, "grip").focus()
    loom.page.keyboard.press("Delete")
    assert [rows.value[0]["on"], rows.value[0]["model"], len(rows.value)] == [False, 0.5, 1]
    press = loom.page.keyboard.press
    press("Control+z")
    loom.wait_for("() => app.graph.nodes[0]?.widgets[0].value.length === 2")
    assert rows.value[1] == RAIN
    press("Control+z")
    loom.wait_for(MODEL, 0.8)
    assert rows.value[0]["on"] is False
    press("Control+z")
    loom.wait_for("() => app.graph.nodes[0]?.widgets[0].value[0].on")
    assert rows.value == [INK, RAIN]
    expect(shown(loom, rows.node).toggle(0)).to_have_attribute("aria-checked", "true")
    press("Control+y")
    press("Control+y")
    loom.wait_for(MODEL, 0.5)
    assert len(rows.value) == 2


def test_a_drag_of_a_strength_is_one_step_of_undo(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK])
    rows.drag(rows.strength(0), by=(60, 0), steps=10)
    assert rows.value[0]["model"] > 1
    loom.page.keyboard.press("Control+z")
    loom.wait_for(MODEL, 0.8)


def test_a_copy_of_the_node_has_rows_of_its_own(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, RAIN])
    copied = loom.page.evaluate(
        """(id) => {
            const node = app.graph.getNodeById(id);
            app.canvas.selectNode(node);
            app.canvas.copyToClipboard();
            app.canvas.pasteFromClipboard();
            return app.graph.nodes.find((one) => one.id !== id).id;
        }""",
        rows.node,
    )
    view = shown(loom, copied)
    assert view.value == [INK, RAIN]
    loom.page.evaluate(
        "(id) => { app.graph.getNodeById(id).pos = [960, 120]; app.canvas.setDirty(true, true); }", copied
    )
    view.toggle(0).click()
    assert [view.value[0]["on"], rows.value[0]["on"]] == [False, True]
    cloned = loom.page.evaluate("(id) => app.graph.getNodeById(id).clone().widgets[0].value", rows.node)
    assert cloned == [INK, RAIN]


def test_rows_survive_saving_and_opening(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, RAIN])
    rows.button("Separate strengths").click()
    workflow = json.loads(json.dumps(loom.saved()))
    loom.page.evaluate("app.graph.clear()")
    loom.load(workflow)
    view = shown(loom, rows.node)
    assert view.value == [INK, RAIN]
    expect(view.strength(0, "clip")).to_be_visible()


def test_the_api_form_is_exported_and_imported(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, RAIN])
    prompt = loom.prompt()
    assert prompt[str(rows.node)]["inputs"]["rows"] == {"__value__": [INK, RAIN]}
    loom.page.evaluate("(prompt) => app.loadApiJson(prompt, 'rows')", prompt)
    loom.wait_for("() => app.graph.nodes[0]?.widgets[0].value.length === 2")
    view = shown(loom, rows.node)
    assert view.value == [INK, RAIN]
    # As text, as a program may write it.
    prompt[str(rows.node)]["inputs"]["rows"] = json.dumps([{"lora": "rain.safetensors", "model": 0.3}])
    loom.page.evaluate("(prompt) => app.loadApiJson(prompt, 'rows')", prompt)
    loom.wait_for(MODEL, 0.3)
    assert shown(loom, rows.node).value == [row("rain.safetensors", model=0.3)]


def test_a_workflow_from_before_has_its_rows_as_text(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK])
    workflow = loom.saved()
    workflow["nodes"][0]["widgets_values"][0] = json.dumps([INK, RAIN], indent=2)
    loom.load(workflow)
    view = shown(loom, rows.node)
    expect(view.items).to_have_count(2)
    assert view.value == [INK, RAIN]


def test_text_that_is_no_rows_is_kept_and_said(loom: LoomPage) -> None:
    rows = rows_node(loom)
    workflow = loom.saved()
    workflow["nodes"][0]["widgets_values"][0] = "[{ broken"
    loom.load(workflow)
    view = shown(loom, rows.node)
    expect(view.element.get_by_role("alert")).to_contain_text("not JSON")
    assert loom.prompt()[str(rows.node)]["inputs"]["rows"] == "[{ broken"
    assert loom.saved()["nodes"][0]["widgets_values"][0] == "[{ broken"


def test_a_bypassed_node_keeps_its_rows_and_is_not_queued(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK])
    loom.page.evaluate("(id) => { app.graph.getNodeById(id).mode = 4; }", rows.node)
    assert str(rows.node) not in loom.prompt()
    loom.page.evaluate("(id) => { app.graph.getNodeById(id).mode = 0; }", rows.node)
    assert rows.value == [INK]


def test_rows_work_inside_a_subgraph_and_as_one_of_its_widgets(loom: LoomPage) -> None:
    # The host remembers the values of widgets by their node's number, also of graphs that were cleared.
    loom.page.evaluate("app.rootGraph.state.lastNodeId = Date.now() % 1e7")
    rows = rows_node(loom, [INK, RAIN])
    outer = loom.page.evaluate(
        "(id) => app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)])).node.id", rows.node
    )

    def value() -> list[dict[str, object]]:
        (node,) = loom.prompt().values()
        return node["inputs"]["rows"]["__value__"]

    assert value() == [INK, RAIN]
    loom.page.evaluate(
        "(id) => { const node = app.graph.getNodeById(id); app.canvas.openSubgraph(node.subgraph, node); }", outer
    )
    loom.wait_for("() => location.hash.includes(app.canvas.graph.id)")
    view = shown(loom, rows.node)
    view.toggle(0).click()
    assert [one["on"] for one in value()] == [False, True]
    # Now the rows are an input of the subgraph's node: the host queues that one's value.
    loom.page.evaluate(
        """() => {
            const graph = app.canvas.graph;
            const node = graph.nodes[0];
            graph.addInput("rows", "LOOM_ROWS").connect(node.inputs.find((one) => one.name === "rows"), node);
        }"""
    )
    view.toggle(1).click()
    assert [one["on"] for one in value()] == [False, False]
    workflow = json.loads(json.dumps(loom.page.evaluate("app.rootGraph.serialize()")))
    loom.page.evaluate("app.canvas.setGraph(app.rootGraph)")
    loom.load(workflow)
    assert [one["on"] for one in value()] == [False, False]


def test_the_host_does_not_see_keys_of_the_rows(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK])
    loom.page.evaluate("(id) => app.canvas.selectNode(app.graph.getNodeById(id))", rows.node)
    view = loom.page.evaluate("[app.canvas.ds.scale, ...app.canvas.ds.offset]")
    rows.control(0, "name").focus()
    for key in (".", "r", "Backspace"):
        loom.page.keyboard.press(key)
    assert rows.value == []
    assert loom.page.evaluate("app.graph.nodes.length") == 1
    assert loom.page.evaluate("[app.canvas.ds.scale, ...app.canvas.ds.offset]") == view
    rows.button("Add LoRA").first.focus()
    for key in ("Delete", "Control+c", "Control+v"):
        loom.page.keyboard.press(key)
    assert loom.page.evaluate("app.graph.nodes.length") == 1


def test_the_node_keeps_its_size_with_forty_rows_which_scroll(loom: LoomPage) -> None:
    rows = rows_node(loom, [row(f"lora_{number:02d}.safetensors") for number in range(40)], size=(520, 400))
    assert loom.page.evaluate("(id) => [...app.graph.getNodeById(id).size]", rows.node)[1] <= 402
    bounds = rows.element.bounding_box()
    assert bounds
    assert bounds["height"] < 330
    scale = loom.page.evaluate("app.canvas.ds.scale")
    rows.control(0, "name").focus()
    rows.item(2).hover()
    loom.page.mouse.wheel(0, 300)
    loom.wait_for("() => document.querySelector('.loom-rows-list').scrollTop > 200")
    assert loom.page.evaluate("app.canvas.ds.scale") == scale
    loom.page.keyboard.press("End")
    expect(rows.item(39)).to_be_in_viewport()
