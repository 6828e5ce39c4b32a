"""Copying and pasting rows, saved sets, and the editor of block weights."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, expect

from browser.loom_page import LoomPage
from browser.rows_files import write_checkpoint, write_loras
from browser.rows_view import RowsView, row, rows_node, wait_until_known
from host_harness.host import ComfyHost

pytestmark = pytest.mark.browser

INK, RAIN = (
    row("tools/styles/ink_wash_tools.safetensors", model=0.8),
    row("tools/light/rainy_night_tools.safetensors", clip=0),
)
FLUX = "rows_tools_flux.safetensors"


@pytest.fixture(scope="module", autouse=True)
def files(comfy: ComfyHost) -> Iterator[None]:
    write_loras(comfy.loras / "tools", seed=100, tag="_tools")
    models = comfy.base_directory / "models" / "diffusion_models"
    write_checkpoint(models / FLUX, "flux")
    yield
    (models / FLUX).unlink()


def copied(loom: LoomPage) -> str:
    return loom.page.evaluate("navigator.clipboard.readText()")


def to_clipboard(loom: LoomPage, text: str) -> None:
    loom.page.evaluate("(text) => navigator.clipboard.writeText(text)", text)


def test_a_row_is_copied_cut_and_pasted_by_keys(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, RAIN])
    press = loom.page.keyboard.press
    rows.control(1, "name").focus()
    press("Control+c")
    assert json.loads(copied(loom)) == [RAIN]
    rows.control(0, "name").focus()
    press("Control+v")
    expect(rows.items).to_have_count(3)
    assert rows.value == [INK, RAIN, RAIN]
    press("Control+x")
    expect(rows.items).to_have_count(2)
    assert rows.value == [INK, RAIN]
    assert loom.page.evaluate("app.graph.nodes.length") == 1
    # With the focus elsewhere the host's own copying is as it was.
    loom.page.evaluate("document.activeElement.blur()")
    loom.page.evaluate("(id) => app.canvas.selectNode(app.graph.getNodeById(id))", rows.node)
    press("Control+c")
    press("Control+v")
    loom.wait_for("() => app.graph.nodes.length === 2")


def test_rows_of_other_programs_are_pasted_and_faults_are_said(loom: LoomPage) -> None:
    loom.page.evaluate("app.extensionManager.toast.removeAll()")
    rows = rows_node(loom)
    to_clipboard(loom, '[{"on": false, "lora": "rainy_night_tools", "strength": 0.6, "strengthTwo": null}]')
    rows.button("Paste rows").click()
    expect(rows.items).to_have_count(1)
    assert rows.value == [row(RAIN["lora"], on=False, model=0.6, hash=rows.value[0]["hash"])]
    to_clipboard(loom, "<lora:ink_wash_tools:0.7:0.2> and <lora:no_such_file:1>")
    rows.button("More", None).first.click()
    rows.menu("Paste rows")
    expect(rows.items).to_have_count(3)
    assert rows.value[1] == row(INK["lora"], model=0.7, clip=0.2, hash=rows.value[1]["hash"])
    expect(loom.page.get_by_text("Pasted, but look at this")).to_be_visible()
    to_clipboard(loom, "hello")
    rows.control(0, "grip").focus()
    loom.page.keyboard.press("Control+v")
    expect(loom.page.get_by_text("Nothing to paste")).to_be_visible()
    assert len(rows.value) == 3
    loom.page.evaluate("app.extensionManager.toast.removeAll()")


def test_all_rows_are_copied_and_one_by_its_menu(loom_canvas: LoomPage) -> None:
    rows = rows_node(loom_canvas, [INK, RAIN])
    rows.button("More", None).first.click()
    rows.menu("Copy all rows")
    expect(rows.element.get_by_role("status")).to_have_text("2 rows copied")
    assert json.loads(copied(loom_canvas)) == [INK, RAIN]
    rows.button("More for ink_wash_tools").click()
    loom_canvas.page.get_by_role("menuitem", name="Copy").click()
    expect(rows.element.get_by_role("status")).to_have_text("1 row copied")
    assert json.loads(copied(loom_canvas)) == [INK]


def test_sets_are_saved_loaded_added_and_deleted(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, RAIN])

    def sets() -> Locator:
        rows.button("More", None).first.click()
        rows.menu("Saved sets…")
        return loom.page.get_by_role("dialog", name="Saved sets")

    sets().get_by_role("textbox", name="Name of the set").fill("Rainy evening")
    loom.page.keyboard.press("Enter")
    expect(sets_named := loom.page.get_by_role("button", name="Rainy evening 2")).to_be_visible()
    loom.page.keyboard.press("Escape")
    rows.put([row("other.safetensors")])
    sets()
    sets_named.click()
    assert rows.value == [INK, RAIN]
    sets().get_by_role("button", name="Add Rainy evening").click()
    assert rows.value == [INK, RAIN, INK, RAIN]
    dialog = sets()
    dialog.get_by_role("button", name="Delete Rainy evening").click()
    expect(dialog).to_contain_text("No sets yet")
    loom.page.keyboard.press("Escape")


def editor(loom: LoomPage, rows: RowsView, index: int = 0) -> Locator:
    """The editor of block weights of a row, with its bars."""
    wait_until_known(loom, "tools/")
    rows.control(index, "blocks").click()
    dialog = loom.page.get_by_role("dialog", name="Block weights of")
    expect(dialog.get_by_role("slider").first).to_be_visible()
    return dialog


def test_bars_of_block_weights_are_dragged_and_moved_by_keys(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK])
    dialog = editor(loom, rows)
    bar = dialog.get_by_role("slider", name="in04")
    assert dialog.get_by_role("slider").count() == 20
    box = bar.bounding_box()
    assert box
    loom.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.75)
    assert rows.value[0]["blocks"] == "in04=0.5"
    expect(bar).to_have_attribute("aria-valuenow", "0.5")
    loom.page.keyboard.press("ArrowUp")
    loom.page.keyboard.press("ArrowRight")
    loom.page.keyboard.press("0")
    assert rows.value[0]["blocks"] == "in04=0.55, in05=0"
    loom.page.keyboard.down("Shift")
    out = dialog.get_by_role("slider", name="out03").bounding_box()
    assert out
    loom.page.mouse.click(out["x"] + 2, out["y"] + out["height"] + 6)
    loom.page.mouse.click(out["x"] + 2, out["y"] + out["height"] - 1)
    loom.page.keyboard.up("Shift")
    assert rows.value[0]["blocks"] == "in04=0.55, in05=0, out=0"
    expect(dialog.get_by_role("textbox")).to_have_value("in04=0.55, in05=0, out=0")
    expect(rows.control(0, "blocks")).to_have_attribute("data-set", "")
    dialog.get_by_role("button", name="Reset").click()
    assert rows.value[0]["blocks"] == ""
    loom.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    loom.page.keyboard.press("Control+z")
    loom.wait_for("() => app.graph.nodes[0]?.widgets[0].value[0].blocks === 'in04=0.55, in05=0, out=0'")


def test_block_weights_are_typed_pasted_as_a_vector_or_taken_from_a_preset(loom: LoomPage) -> None:
    rows = rows_node(loom, [row(INK["lora"], blocks="mid=0")])
    dialog = editor(loom, rows)
    text = dialog.get_by_role("textbox")
    expect(dialog.get_by_role("slider", name="mid")).to_have_attribute("aria-valuenow", "0")
    text.fill("in1-3=0.25, mid=0.5")
    expect(dialog.get_by_role("slider", name="in02")).to_have_attribute("aria-valuenow", "0.25")
    assert rows.value[0]["blocks"] == "in1-3=0.25, mid=0.5"
    text.fill("1,0,0,0,0,1,1,1,1,1,1,1")
    expect(dialog.get_by_role("slider", name="in04")).to_have_attribute("aria-valuenow", "0")
    assert rows.value[0]["blocks"] == "in4-5=0, in7-8=0"
    text.fill("1,0,R")
    expect(dialog.get_by_role("alert")).to_contain_text("expected for SDXL")
    assert rows.value[0]["blocks"] == "in4-5=0, in7-8=0"
    dialog.get_by_role("combobox", name="Preset").select_option("Middle only")
    expect(dialog.get_by_role("slider", name="out08")).to_have_attribute("aria-valuenow", "0")
    assert rows.value[0]["blocks"] == "base=0, in=0, out=0"
    loom.page.keyboard.press("Escape")


def test_the_blocks_are_those_of_the_connected_model(loom_canvas: LoomPage) -> None:
    loom = loom_canvas
    loader = loom.add_node("UNETLoader", at=(60, 120))
    loom.set_widget(loader, "unet_name", FLUX)
    rows = rows_node(loom, [INK])
    loom.connect(loader, 0, rows.node, "model")
    loom.page.evaluate("app.canvas.emitBeforeChange(), app.canvas.emitAfterChange()")
    expect(rows.control(0, "chip")).to_have_attribute("data-tone", "bad")
    dialog = editor(loom, rows)
    assert dialog.get_by_role("slider").count() == 58
    box = dialog.bounding_box()
    assert box
    assert box["width"] < 480
    loom.shot("rows_blocks_flux", dialog)
    loom.page.keyboard.press("Escape")


def test_block_weights_of_an_unknown_file_are_taken_as_text(loom_canvas: LoomPage) -> None:
    rows = rows_node(loom_canvas, [row("nowhere.safetensors")])
    rows.control(0, "blocks").click()
    dialog = loom_canvas.page.get_by_role("dialog", name="Block weights of nowhere")
    expect(dialog).to_contain_text("not known which family")
    dialog.get_by_role("textbox").fill("mid=0")
    loom_canvas.wait_for("() => app.graph.nodes[0].widgets[0].value[0].blocks === 'mid=0'")
    loom_canvas.page.keyboard.press("Escape")
    assert rows.value[0]["blocks"] == "mid=0"
