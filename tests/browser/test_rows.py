"""LoRA Stack's rows: switching, ordering, strengths and the value that the API gets, by mouse and by keys."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from browser.loom_page import LoomPage
from browser.rows_view import row, rows_node

pytestmark = pytest.mark.browser

INK, RAIN, MOSS = row("styles/ink.safetensors", model=0.8), row("rain.safetensors"), row("nature/moss.safetensors")


def test_a_new_node_invites_to_add_a_lora(loom: LoomPage) -> None:
    rows = rows_node(loom)
    assert rows.value == []
    expect(rows.button("Add LoRA")).to_be_visible()
    expect(rows.button("Paste rows")).to_be_visible()
    expect(rows.element).to_contain_text("No LoRAs yet")


def test_rows_are_switched_one_by_one_and_all_together(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, RAIN, MOSS])
    everything = rows.element.get_by_role("checkbox", name="All LoRAs on")
    expect(rows.element).to_contain_text("3 of 3 on")
    rows.toggle(1).click()
    expect(rows.element).to_contain_text("2 of 3 on")
    assert [one["on"] for one in rows.value] == [True, False, True]
    assert everything.evaluate("(box) => box.indeterminate")
    everything.click()
    assert [one["on"] for one in rows.value] == [True, True, True]
    everything.click()
    assert [one["on"] for one in rows.value] == [False, False, False]
    expect(rows.toggle(0)).to_have_attribute("aria-checked", "false")


def test_a_row_is_dragged_by_its_grip_to_another_place(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, RAIN, MOSS])
    rows.drag(rows.control(0, "grip"), by=(0, 62))
    assert rows.names == [RAIN["lora"], MOSS["lora"], INK["lora"]]
    rows.drag(rows.control(2, "grip"), by=(0, -34))
    assert rows.names == [RAIN["lora"], INK["lora"], MOSS["lora"]]
    rows.drag(rows.control(1, "grip"), by=(0, 3))
    assert rows.names == [RAIN["lora"], INK["lora"], MOSS["lora"]]


def test_a_drag_shows_where_the_row_will_be_and_escape_ends_it(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, RAIN, MOSS])
    rows.control(0, "grip").hover()
    loom.page.mouse.down()
    box = rows.item(2).bounding_box()
    assert box
    loom.page.mouse.move(box["x"] + 10, box["y"] + 20, steps=5)
    expect(rows.item(2)).to_have_attribute("data-drop-after", "")
    loom.page.keyboard.press("Escape")
    loom.page.mouse.up()
    assert rows.names == [INK["lora"], RAIN["lora"], MOSS["lora"]]
    expect(rows.item(2)).not_to_have_attribute("data-drop-after", "")


def test_a_long_list_scrolls_while_a_row_is_dragged_to_its_end(loom: LoomPage) -> None:
    rows = rows_node(loom, [row(f"lora_{number:02d}.safetensors") for number in range(14)], size=(520, 330))
    grip = rows.control(0, "grip")
    box, bounds = grip.bounding_box(), rows.element.bounding_box()
    assert box
    assert bounds
    loom.page.mouse.move(box["x"] + 8, box["y"] + 8)
    loom.page.mouse.down()
    loom.page.mouse.move(box["x"] + 8, bounds["y"] + bounds["height"] - 6, steps=5)
    expect(rows.item(13)).to_have_attribute("data-drop-after", "", timeout=10_000)
    loom.page.mouse.up()
    assert rows.names[-1] == "lora_00.safetensors"
    # The node is as large as before.
    assert loom.page.evaluate("(id) => app.graph.getNodeById(id).size[0]", rows.node) == 520


def test_a_row_is_moved_and_removed_by_keys(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, RAIN, MOSS])
    press = loom.page.keyboard.press
    rows.control(0, "grip").focus()
    press("Alt+ArrowDown")
    assert rows.names == [RAIN["lora"], INK["lora"], MOSS["lora"]]
    assert rows.focused == "1 grip"
    expect(rows.element.get_by_role("status")).to_have_text("ink, 2 of 3")
    press("Space")
    press("ArrowDown")
    press("Enter")
    assert rows.names == [RAIN["lora"], MOSS["lora"], INK["lora"]]
    press("Space")
    press("ArrowUp")
    press("ArrowUp")
    press("Escape")
    assert rows.names == [RAIN["lora"], MOSS["lora"], INK["lora"]]
    press("Delete")
    assert rows.names == [RAIN["lora"], MOSS["lora"]]
    assert rows.focused == "1 grip"
    # The host, which deletes the node that is selected, saw none of it.
    assert loom.page.evaluate("app.graph.nodes.length") == 1


def test_arrows_go_through_the_controls_of_all_rows_and_tab_through_one(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, RAIN])
    press = loom.page.keyboard.press
    expect(rows.control(1, "chip")).to_have_text("not found")
    rows.control(0, "name").focus()
    press("ArrowDown")
    assert rows.focused == "1 name"
    press("ArrowRight")
    press("ArrowRight")
    assert rows.focused == "1 model"
    press("Home")
    assert rows.focused == "0 model"
    for _ in range(3):
        press("ArrowLeft")
    assert rows.focused == "0 toggle"
    press("Space")
    assert [one["on"] for one in rows.value] == [False, True]
    for _ in range(7):
        press("Tab")
    assert rows.focused == ""


def test_a_strength_is_typed_with_a_point_or_a_comma(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, RAIN])
    rows.strength(0).click()
    field = rows.item(0).get_by_role("textbox")
    expect(field).to_have_value("0.8")
    field.press_sequentially("0,65")
    field.press("Enter")
    assert (rows.value[0]["model"], rows.value[0]["clip"]) == (0.65, 0.65)
    expect(rows.strength(0)).to_have_text("0.65")
    assert rows.focused == "0 model"
    loom.page.keyboard.press("-")
    loom.page.keyboard.type("1.5")
    loom.page.keyboard.press("Enter")
    assert rows.value[0]["model"] == -1.5
    expect(rows.strength(0)).to_have_attribute("aria-valuenow", "-1.5")
    for typed in ("much", "1e5"):
        rows.strength(0).click()
        field.fill(typed)
        field.press("Enter")
        assert rows.value[0]["model"] == -1.5
    rows.strength(1).click()
    rows.item(1).get_by_role("textbox").fill("500")
    rows.button("More", None).first.focus()
    assert rows.value[1]["model"] == 100


def test_a_strength_is_scrubbed_finer_with_shift_and_coarser_with_control(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK])
    rows.drag(rows.strength(0), by=(41, 0), steps=41)
    assert rows.value[0]["model"] == pytest.approx(1.3, abs=0.051)
    before = rows.value[0]["model"]
    rows.drag(rows.strength(0), by=(-21, 0), steps=21, keys="Shift")
    assert rows.value[0]["model"] == pytest.approx(before - 0.05, abs=0.011)
    before = rows.value[0]["model"]
    rows.drag(rows.strength(0), by=(-21, 0), steps=21, keys="Control")
    assert rows.value[0]["model"] == pytest.approx(before - 1.25, abs=0.26)
    # The canvas stayed where it is.
    assert loom.page.evaluate("[...app.canvas.ds.offset]") == [0, 0]


def test_a_strength_follows_arrows_and_the_wheel_and_a_double_click_resets_it(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK])
    rows.strength(0).focus()
    for key in ("ArrowUp", "ArrowUp", "Shift+ArrowDown", "Control+ArrowUp"):
        loom.page.keyboard.press(key)
    assert rows.value[0]["model"] == 1.0
    loom.page.keyboard.press("PageDown")
    assert rows.value[0]["model"] == 0.75
    rows.strength(0).hover()
    loom.page.mouse.wheel(0, -100)
    loom.wait_for("(id) => app.graph.getNodeById(id).widgets[0].value[0].model === 0.8", rows.node)
    rows.strength(0).dblclick()
    assert (rows.value[0]["model"], rows.value[0]["clip"]) == (1, 1)
    expect(rows.item(0).get_by_role("textbox")).to_have_count(0)
    assert loom.page.evaluate("app.canvas.ds.scale") == 1


def test_strengths_are_linked_or_split_and_what_differs_is_always_seen(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, row("rain.safetensors", model=1, clip=0)])
    expect(rows.strength(0, "clip")).to_be_hidden()
    expect(rows.strength(1, "clip")).to_have_text("0.00")
    rows.strength(1).focus()
    loom.page.keyboard.press("ArrowDown")
    assert (rows.value[1]["model"], rows.value[1]["clip"]) == (0.95, 0)
    rows.button("Separate strengths").click()
    expect(rows.strength(0, "clip")).to_be_visible()
    rows.strength(0, "clip").focus()
    loom.page.keyboard.press("ArrowDown")
    assert (rows.value[0]["model"], rows.value[0]["clip"]) == (0.8, 0.75)
    # It is kept with the node, not with the rows.
    assert loom.saved()["nodes"][0]["properties"]["loom_split"] is True


def test_a_row_has_a_menu_on_its_button_and_by_the_right_mouse_button(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK, RAIN])
    rows.button("More for ink").click()
    rows.menu("Duplicate")
    assert rows.value == [INK, INK, RAIN]
    rows.item(2).click(button="right", position={"x": 120, "y": 14})
    rows.menu("Move up")
    assert rows.value == [INK, RAIN, INK]
    rows.item(0).click(button="right", position={"x": 120, "y": 14})
    rows.menu("Switch off")
    assert rows.value[0]["on"] is False
    rows.button("More", None).first.click()
    rows.menu("Remove rows that are off")
    assert rows.value == [RAIN, INK]


def test_controls_are_named_after_their_lora(loom: LoomPage) -> None:
    rows = rows_node(loom, [INK])
    item = rows.item(0)
    for role, name in (
        ("button", "Move ink, 1 of 1"),
        ("switch", "ink on"),
        ("button", "ink: choose another LoRA"),
        ("spinbutton", "ink: strength"),
        ("button", "ink: block weights"),
        ("button", "About ink"),
        ("button", "More for ink"),
    ):
        expect(item.get_by_role(role, name=name, exact=True)).to_be_visible()  # type: ignore[arg-type]
