"""Picker: the search popup as a user sees it, over an index that a test makes up."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator, expect

from browser.loom_page import LoomPage
from host_harness.host import PACK_NAME

MODULES = f"/extensions/{PACK_NAME}"
SDXL = {"architecture": "sdxl", "title": "SDXL"}


def entry(name: str, **more: Any) -> dict[str, Any]:
    """A file as the index has it (docs/PAGE.md)."""
    usual = {
        "name": name, "size": 228_000_000, "modified": 1_780_000_000, "title": "", "architecture": "sdxl",
        "base": "SDXL", "format": "kohya", "types": ["lora"], "rank": "16", "used": 2166, "total": 2166, "problems": 0,
        "trigger_words": [], "strength": None, "preview": False, "autov3": None, "sha256": None, "state": "described",
        "error": None,
    }  # fmt: skip
    return usual | more


class Picker:
    """The popup in a page, over an index that the test makes up."""

    def __init__(self, loom: LoomPage) -> None:
        self.loom, self.page = loom, loom.page
        self.popup = self.page.get_by_role("dialog", name="Choose a LoRA")
        self.search = self.popup.get_by_role("combobox", name="Search LoRAs")
        self.options = self.popup.get_by_role("listbox", name="LoRAs").get_by_role("option")
        self.status = self.popup.get_by_role("status")

    def pretend(self, entries: list[dict[str, Any]], **state: Any) -> None:
        """From now on the server's index holds these."""
        counts = {"files": len(entries), "described": len(entries), "hashed": 0, "busy": False}
        answer = {"version": 1, "full": True, "state": counts | state, "loras": entries, "gone": []}
        self.page.unroute("**/loom/loras*")
        self.page.route("**/loom/loras*", lambda route: route.fulfill(json=answer))
        self.read_all()

    def read_all(self) -> None:
        """The page reads the whole index anew."""
        self.page.evaluate(
            "async (at) => (await import(`${at}/picker/library.mjs`)).library.refresh({ whole: true })", MODULES
        )

    def open(self, **options: Any) -> None:
        """As a part of the page does it; the answer is ``chosen()``."""
        self.page.evaluate(
            """async ([at, options]) => {
                const { openPicker } = await import(`${at}/picker/picker.mjs`);
                window.loomChosen = undefined;
                openPicker({ anchor: new DOMRect(320, 120, 200, 24), ...options }).then((entries) => {
                    window.loomChosen = entries && entries.map(({ name }) => name);
                });
            }""",
            [MODULES, options],
        )
        expect(self.search).to_be_focused()

    def chosen(self) -> list[str] | None:
        self.loom.wait_for("window.loomChosen !== undefined")
        return self.page.evaluate("window.loomChosen")

    def option(self, text: str) -> Locator:
        return self.options.filter(has_text=text)

    @property
    def names(self) -> list[str]:
        """The titles that are listed."""
        return self.options.locator(".loom-picker-title").all_inner_texts()

    @property
    def active(self) -> Locator:
        """The row that the search field names as the active one."""
        return self.page.locator(f"#{self.search.get_attribute('aria-activedescendant')}")
