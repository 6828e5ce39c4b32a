"""RowsView: the rows of a LoRA Stack as a user sees them, and what the API would get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from playwright.sync_api import Locator, expect

from browser.loom_page import LoomPage
from host_harness.host import PACK_NAME

Row = dict[str, Any]


def row(lora: str, **fields: Any) -> Row:
    """A row with all of its fields: on, at strength 1."""
    model = fields.get("model", 1)
    return {"on": True, "lora": lora, "model": model, "clip": model, "blocks": "", "hash": "", **fields}


class RowsView:
    """The rows of one node."""

    def __init__(self, loom: LoomPage, node: int, element: Locator) -> None:
        self.loom, self.node, self.element = loom, node, element

    def put(self, rows: Sequence[Row]) -> None:
        """Rows that are there before the user does something, as a step of the history that is done."""
        self.loom.set_widget(self.node, "rows", list(rows))
        self.loom.page.evaluate("app.canvas.emitBeforeChange(), app.canvas.emitAfterChange()")
        expect(self.items).to_have_count(len(rows))

    @property
    def items(self) -> Locator:
        return self.element.get_by_role("listitem")

    def item(self, index: int) -> Locator:
        return self.items.nth(index)

    def button(self, name: str, index: int | None = None) -> Locator:
        """A button of a row, or of the header."""
        return (self.element if index is None else self.item(index)).get_by_role("button", name=name)

    def toggle(self, index: int) -> Locator:
        return self.item(index).get_by_role("switch")

    def strength(self, index: int, which: str = "model") -> Locator:
        return self.item(index).locator(f"[data-control={which}]")

    def control(self, index: int, name: str) -> Locator:
        return self.item(index).locator(f"[data-control={name}]")

    def menu(self, name: str) -> None:
        """Choose a command of the menu that is open."""
        self.loom.page.get_by_role("menu").get_by_role("menuitem", name=name, exact=True).click()

    @property
    def names(self) -> list[str]:
        return [one["lora"] for one in self.value]

    @property
    def value(self) -> list[Row]:
        """The rows as the API gets them."""
        inputs = self.loom.prompt()[str(self.node)]["inputs"]
        assert set(inputs["rows"]) == {"__value__"}
        return inputs["rows"]["__value__"]

    @property
    def focused(self) -> str:
        """What has the focus: ``"1 grip"`` is the grip of the second row; "" outside of the rows."""
        return self.element.evaluate(
            """(root) => {
                const focus = document.activeElement;
                const row = focus.closest(".loom-rows-row");
                if (!row || !root.contains(row)) return "";
                return [...row.parentNode.children].indexOf(row) + " " + focus.dataset.control;
            }"""
        )

    def drag(self, start: Locator, *, by: tuple[float, float], steps: int = 8, keys: str = "") -> None:
        """Press the mouse on an element and move it by pixels; a key may be held meanwhile."""
        box = start.bounding_box()
        assert box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse, keyboard = self.loom.page.mouse, self.loom.page.keyboard
        mouse.move(x, y)
        mouse.down()
        if keys:
            keyboard.down(keys)
        mouse.move(x + by[0], y + by[1], steps=steps)
        mouse.up()
        if keys:
            keyboard.up(keys)


def rows_node(
    loom: LoomPage, rows: Sequence[Row] = (), *, size: tuple[int, int] = (520, 380), at: tuple[int, int] = (420, 120)
) -> RowsView:
    """A new LoRA Stack with rows."""
    node = loom.add_node("LoomLoraStack", at=at, size=size)
    view = RowsView(loom, node, loom.page.get_by_role("group", name="LoRA rows").last)
    expect(view.element).to_be_visible()
    view.put(rows)
    return view


def wait_until_known(loom: LoomPage, folder: str) -> None:
    """Until the index has looked into all files of a folder, ``"sdxl/"``, and the page has heard of it."""
    loom.page.evaluate(
        """async (folder) => {
            const { library } = await import("/extensions/PACK/picker/library.mjs");
            const done = ({ state, autov3 }) => state === "failed" || (state === "described" && autov3);
            const known = () => {
                const own = [...library.entries.values()].filter(({ name }) => name.startsWith(folder));
                return own.length > 6 && own.every(done);
            };
            while (!known()) {
                await library.refresh();
                await new Promise((later) => setTimeout(later, 50));
            }
        }""".replace("PACK", PACK_NAME),
        folder,
    )
