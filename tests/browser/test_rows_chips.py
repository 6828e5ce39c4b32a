"""Chips of the rows: what a file is, whether it fits the connected model, what the run took, conflicts, lost files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from browser.loom_page import LoomPage
from browser.rows_files import write_checkpoint, write_loras
from browser.rows_view import Row, RowsView, row, rows_node, wait_until_known
from host_harness.host import ComfyHost

pytestmark = pytest.mark.browser

SDXL, SD15 = "rows_chips_sdxl.safetensors", "rows_chips_sd15.safetensors"
WASH, SOFT = "sdxl/styles/ink_wash.safetensors", "sdxl/styles/ink_wash_soft.safetensors"
RAIN, OLD = "sdxl/light/rainy_night.safetensors", "sdxl/old/watercolor_sd15.safetensors"
DEMO = "sdxl/demo/contrast.safetensors"


@pytest.fixture(scope="module")
def files(comfy: ComfyHost) -> Iterator[Path]:
    folder = comfy.loras / "sdxl"
    write_loras(folder)
    write_checkpoint(comfy.checkpoints / SDXL, "sdxl")
    write_checkpoint(comfy.checkpoints / SD15, "sd15")
    yield folder
    for name in (SDXL, SD15):
        (comfy.checkpoints / name).unlink()


@pytest.fixture
def ready(loom: LoomPage, files: Path) -> LoomPage:
    """The page, whose index knows the files."""
    wait_until_known(loom, "sdxl/")
    return loom


@pytest.fixture
def ready_canvas(loom_canvas: LoomPage, files: Path) -> LoomPage:
    wait_until_known(loom_canvas, "sdxl/")
    return loom_canvas


def chip(rows: RowsView, index: int) -> Locator:
    return rows.control(index, "chip")


def connected(loom: LoomPage, checkpoint: str, rows_of: list[Row], size: tuple[int, int] = (520, 380)) -> RowsView:
    """Rows of a stack that a checkpoint is connected to; the page looked for the checkpoint's file."""
    loader = loom.add_node("CheckpointLoaderSimple", at=(60, 120))
    loom.set_widget(loader, "ckpt_name", checkpoint)
    rows = rows_node(loom, rows_of, size=size)
    loom.connect(loader, 0, rows.node, "model")
    loom.page.evaluate("app.canvas.emitBeforeChange(), app.canvas.emitAfterChange()")
    return rows


def test_a_chip_tells_family_rank_and_type_before_a_model_is_connected(ready: LoomPage) -> None:
    rows = rows_node(ready, [row(RAIN), row("sdxl/broken.safetensors")], size=(700, 380))
    expect(chip(rows, 0)).to_have_attribute("data-tone", "quiet")
    expect(chip(rows, 0)).to_have_text("60/60SDXLr8LoRA")
    expect(chip(rows, 1)).to_have_attribute("data-tone", "bad")
    expect(chip(rows, 1)).to_have_text("unreadable")


def test_a_chip_is_green_or_red_with_the_reason_for_the_connected_model(ready: LoomPage) -> None:
    rows = connected(ready, SDXL, [row(RAIN), row(OLD)])
    expect(chip(rows, 0)).to_have_attribute("data-tone", "good")
    expect(chip(rows, 0)).to_contain_text("30/30")
    expect(chip(rows, 1)).to_have_attribute("data-tone", "bad")
    expect(chip(rows, 1)).to_have_attribute("title", "SD 1.5, rank 4, lora\n1 of 3 modules fit the connected SDXL.\n"
                                            "made for SD 1.5; the model is SDXL")  # fmt: skip
    expect(chip(rows, 1)).to_have_attribute("aria-label", "watercolor_sd15: 1/3. made for SD 1.5; the model is SDXL")


def test_another_checkpoint_is_noticed(ready: LoomPage) -> None:
    rows = connected(ready, SDXL, [row(OLD)])
    expect(chip(rows, 0)).to_have_attribute("data-tone", "bad")
    ready.page.evaluate(
        """(name) => {
            const widget = app.graph.nodes.find((one) => one.type === "CheckpointLoaderSimple").widgets[0];
            app.canvas.emitBeforeChange();
            widget.value = name;
            app.canvas.emitAfterChange();
        }""",
        SD15,
    )
    expect(chip(rows, 0)).to_have_attribute("data-tone", "good")


def test_what_the_run_took_is_the_truth_until_the_row_changes(ready_canvas: LoomPage) -> None:
    loom = ready_canvas
    model = loom.add_node("LoomDemoModel", at=(60, 120))
    rows = rows_node(loom, [row(DEMO), row(RAIN, on=False)])
    output = loom.add_node("PreviewAny", at=(1000, 120))
    loom.connect(model, 0, rows.node, "model")
    loom.connect(rows.node, 4, output, "source")
    loom.page.evaluate("app.queuePrompt(0, 1)")
    expect(chip(rows, 0)).to_have_attribute("title", "Loom Demo, rank 4, lora\n28 of 28 modules fit in the last run.")
    expect(chip(rows, 0)).to_have_attribute("data-tone", "good")
    rows.strength(0).focus()
    loom.page.keyboard.press("ArrowUp")
    expect(chip(rows, 0)).to_have_attribute("title", re.compile("in the last run"))
    rows.toggle(0).click()
    expect(chip(rows, 0)).to_have_attribute(
        "title", "Loom Demo, rank 4, lora\n28 of 28 modules fit the connected Loom Demo."
    )


def test_rows_in_conflict_warn_and_name_each_other(ready: LoomPage) -> None:
    rows = rows_node(ready, [row(WASH), row(SOFT), row(RAIN), row(RAIN)])
    for index in range(4):
        expect(chip(rows, index)).to_have_attribute("data-tone", "warning")
    title = chip(rows, 0).get_attribute("title") or ""
    assert "With row 2, ink_wash_soft: the same change in two files twice" in title
    assert "With row 4, rainy_night: the same file is on twice" in (chip(rows, 2).get_attribute("title") or "")
    rows.toggle(1).click()
    rows.toggle(3).click()
    for index in range(4):
        expect(chip(rows, index)).to_have_attribute("data-tone", "quiet")


def test_a_file_that_was_renamed_is_found_by_its_content(ready: LoomPage) -> None:
    hashed = ready.page.evaluate(
        """async (name) => {
            const { loras } = await (await app.api.fetchApi("/loom/loras")).json();
            return loras.find((one) => one.name === name).autov3;
        }""",
        WASH,
    )
    rows = rows_node(ready, [row("old_name.safetensors", hash=hashed), row("gone.safetensors")])
    expect(chip(rows, 1)).to_have_text("not found")
    expect(chip(rows, 0)).to_have_text("renamed")
    title = f"There is no old_name.safetensors, but {WASH} has the same content. Click to take it."
    expect(chip(rows, 0)).to_have_attribute("title", title)
    chip(rows, 0).click()
    assert rows.value[0] == row(WASH, hash=hashed)
    expect(chip(rows, 0)).to_contain_text("90/90")


def test_a_row_that_is_pasted_has_the_hash_that_finds_its_file_again(ready_canvas: LoomPage) -> None:
    rows = rows_node(ready_canvas)
    ready_canvas.page.evaluate("(text) => navigator.clipboard.writeText(text)", f"<lora:{WASH}:0.5>")
    rows.button("Paste rows").click()
    expect(rows.items).to_have_count(1)
    assert len(rows.value[0]["hash"]) == 12


def test_chips_that_are_alike_say_whose_they_are_after_a_move(ready_canvas: LoomPage) -> None:
    rows = rows_node(ready_canvas, [row(WASH, on=False), row(SOFT, on=False)])
    expect(chip(rows, 0)).to_have_attribute("aria-label", "ink_wash: 90/90. SDXL, r16, LoRA")
    rows.control(0, "grip").press("Alt+ArrowDown")
    expect(chip(rows, 0)).to_have_attribute("aria-label", "ink_wash_soft: 90/90. SDXL, r16, LoRA")
    expect(chip(rows, 1)).to_have_attribute("aria-label", "ink_wash: 90/90. SDXL, r16, LoRA")


def test_a_lora_is_added_and_replaced_by_the_search_popup(ready: LoomPage) -> None:
    rows = rows_node(ready)
    rows.button("Add LoRA").last.click()
    popup = ready.page.get_by_role("dialog", name="Choose a LoRA")
    popup.get_by_role("combobox", name="Search LoRAs").fill("rainy")
    popup.get_by_role("listbox").get_by_role("option").first.wait_for()
    ready.page.keyboard.press("Enter")
    expect(rows.items).to_have_count(1)
    (added,) = rows.value
    assert added == row(RAIN, hash=added["hash"])
    assert len(added["hash"]) == 12
    assert rows.focused == "0 model"
    rows.control(0, "name").click()
    popup.get_by_role("combobox", name="Search LoRAs").fill("film grain")
    popup.get_by_role("listbox").get_by_role("option").first.wait_for()
    ready.page.keyboard.press("Enter")
    expect(rows.control(0, "name")).to_contain_text("film_grain")
    (replaced,) = rows.value
    assert replaced["hash"] != added["hash"]
    ready.page.keyboard.press("Control+z")
    ready.wait_for("(name) => app.graph.nodes[0]?.widgets[0].value[0]?.lora === name", RAIN)


def test_the_dialog_about_a_lora_opens_from_its_row(ready_canvas: LoomPage) -> None:
    rows = rows_node(ready_canvas, [row(RAIN)])
    rows.button("About rainy_night").click()
    expect(ready_canvas.page.get_by_role("dialog").filter(has_text="rainy_night")).to_be_visible()
    ready_canvas.page.keyboard.press("Escape")


def readme_rows(loom: LoomPage) -> RowsView:
    """A stack as people have it: one that is off, one at a lower strength, one with block weights, one for SD 1.5."""
    return connected(
        loom,
        SDXL,
        [
            row(WASH, model=0.8, clip=0.8),
            row(RAIN, model=0.65, clip=0.4),
            row("sdxl/film_grain.safetensors", model=0.35, blocks="in=0.5, mid=0"),
            row(OLD, model=1),
            row(SOFT, model=0.5, on=False),
        ],
        size=(560, 372),
    )


def test_pictures_of_rows_for_the_readme(ready: LoomPage) -> None:
    rows = readme_rows(ready)
    expect(chip(rows, 3)).to_have_attribute("data-tone", "bad")
    expect(chip(rows, 0)).to_have_attribute("data-tone", "good")
    if not ready.vue:  # there the node is drawn on the canvas
        return
    ready.page.mouse.move(2, 400)
    ready.shot("rows", ready.page.locator(f"[data-node-id='{rows.node}']"), readme=True)
    rows.button("film_grain: block weights").click()
    dialog = ready.page.get_by_role("dialog", name="Block weights of film_grain")
    expect(dialog.get_by_role("slider", name="mid")).to_have_attribute("aria-valuenow", "0")
    ready.shot("blocks", dialog, readme=True)
    ready.page.keyboard.press("Escape")
