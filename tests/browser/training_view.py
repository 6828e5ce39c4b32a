"""TrainingView: the panel of trainings as a user sees it, and the part inside LoRA Train."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator, expect

from browser.loom_page import LoomPage

Json = dict[str, Any]


class TrainingView:
    """What the page shows of trainings."""

    def __init__(self, loom: LoomPage) -> None:
        self.loom, self.page = loom, loom.page
        self.panel = self.page.locator(".loom-training-panel")
        self.runs = self.panel.get_by_role("list", name="Runs", exact=True).get_by_role("listitem")
        self.legend = self.panel.get_by_role("list", name="Runs in the chart").get_by_role("listitem")
        self.chart = self.panel.get_by_role("img", name="Chart of losses")
        self.slider = self.panel.get_by_role("slider", name="Step of the samples")

    def open(self) -> None:
        """By the command of the host's menu."""
        self.page.evaluate("app.extensionManager.command.execute('loom.showTraining')")
        expect(self.panel).to_be_visible()

    def close(self) -> None:
        """By the host's own button of the bottom panel."""
        if self.panel.count():
            self.page.evaluate("app.extensionManager.command.execute('Workspace.ToggleBottomPanelTab.loom.training')")
            expect(self.panel).to_have_count(0)

    def run(self, name: str) -> Locator:
        """The row of a run in the list."""
        return self.panel.locator(f'li[data-run="{name}"]')

    def select(self, name: str) -> None:
        self.run(name).get_by_role("button").click()
        expect(self.panel.get_by_role("heading", name=name, exact=True)).to_be_visible()

    def overlay(self, name: str) -> None:
        self.run(name).get_by_role("checkbox").check()

    def node(self, at: tuple[int, int] = (420, 120), **values: Any) -> tuple[int, Locator]:
        """A LoRA Train with values, and the part in it."""
        node = self.loom.add_node("LoomLoraTrain", at=at)
        for name, value in values.items():
            self.loom.set_widget(node, name, value)
        return node, self.parts().last

    def parts(self) -> Locator:
        return self.page.locator(".loom-training-node")

    def tell(self, kind: str, run: str = "told", **data: Any) -> None:
        """An event of the host, as it sends them while it trains."""
        message = {"prompt_id": "p", "node": "1", "run": run, "lora": f"{run}.safetensors", "kind": kind, **data}
        self.page.evaluate("(message) => app.api.dispatchCustomEvent('loom.train', message)", message)

    def tell_steps(self, first: int, last: int, steps: int = 40, run: str = "told", **data: Any) -> None:
        losses = [[step, 0.1 + 0.2 / step] for step in range(first, last + 1)]
        known = {"rates": {"denoiser": 1e-4}, "steps_per_second": 0.5, "seconds_left": 3725, "memory": 7 * 2**30}
        rest = {"step": last, "steps": steps, "loss": losses[-1][1], "losses": losses, **known, **data}
        self.tell("progress", run, **rest)
