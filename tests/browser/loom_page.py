"""LoomPage: the host's page as a user has it, and what a test asks of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route

from host_harness.host import PACK_NAME, ComfyHost

# Where screenshots go that a reader of the README sees; a test run alone leaves the repository as it is.
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "images"
SHOTS = Path(os.environ.get("LOOM_SHOTS") or "/tmp/loom-shots")
PATIENCE = 20_000


class LoomPage:
    """One page of a browser on the host.

    ``page`` is Playwright's; positions and boxes are CSS pixels of the window.
    """

    def __init__(self, page: Page, host: ComfyHost) -> None:
        self.page, self.host = page, host
        self._complaints: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._complained(f"{error.message}\n{error.stack}"))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._complained(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def _complained(self, text: str) -> None:
        # The host's own page complains of many things; only what comes from the pack is ours.
        if PACK_NAME in text or "/loom/" in text or "loom" in text.lower():
            self._complaints.append(text)

    def complaints(self) -> list[str]:
        """Errors and warnings in the console that come from the pack, since the last call."""
        found, self._complaints = self._complaints, []
        return found

    def reset(self, *, vue: bool) -> None:
        """An empty graph at scale 1, no dialog, the mouse at rest; nodes drawn by Vue or by LiteGraph."""
        self.page.keyboard.press("Escape")
        self.page.mouse.move(2, 400)
        self.page.evaluate(
            """async (vue) => {
                const settings = app.extensionManager.setting;
                if (settings.get("Comfy.VueNodes.Enabled") !== vue) {
                    await settings.set("Comfy.VueNodes.Enabled", vue);
                }
                if (app.rootGraph) app.canvas.setGraph(app.rootGraph);
                app.graph.clear();
                app.canvas.ds.reset();
                app.canvas.ds.offset = [0, 0];
                app.canvas.setDirty(true, true);
            }""",
            vue,
        )
        self.page.wait_for_function("(vue) => Boolean(LiteGraph.vueNodesMode) === vue", arg=vue, timeout=PATIENCE)
        self.complaints()

    @property
    def vue(self) -> bool:
        """Whether nodes are drawn by Vue now."""
        return bool(self.page.evaluate("Boolean(LiteGraph.vueNodesMode)"))

    def add_node(self, kind: str, at: tuple[int, int] = (420, 120), size: tuple[int, int] | None = None) -> int:
        """A new node of a class, its upper left corner at a place of the graph; its id."""
        return self.page.evaluate(
            """async ([kind, at, size]) => {
                const node = LiteGraph.createNode(kind);
                app.graph.add(node);
                node.pos = at;
                if (size) node.setSize(size);
                app.canvas.setDirty(true, true);
                await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
                return node.id;
            }""",
            [kind, list(at), list(size) if size else None],
        )

    def connect(self, source: int, output: int, target: int, name: str) -> None:
        """Link an output of one node to a named input of another."""
        self.page.evaluate(
            """([source, output, target, name]) => {
                const to = app.graph.getNodeById(target);
                app.graph.getNodeById(source).connect(output, to, to.inputs.findIndex((one) => one.name === name));
            }""",
            [source, output, target, name],
        )

    def widget(self, node: int, name: str) -> Any:
        """The value of a widget."""
        return self.page.evaluate(
            "([node, name]) => app.graph.getNodeById(node).widgets.find((one) => one.name === name).value",
            [node, name],
        )

    def set_widget(self, node: int, name: str, value: Any) -> None:
        self.page.evaluate(
            """([node, name, value]) => {
                const widget = app.graph.getNodeById(node).widgets.find((one) => one.name === name);
                widget.value = value;
                widget.callback?.(value);
            }""",
            [node, name, value],
        )

    def load(self, workflow: Any) -> None:
        """Open a workflow of the page's own form."""
        self.page.evaluate("(workflow) => app.loadGraphData(workflow)", workflow)

    def saved(self) -> Any:
        """The graph as a workflow file holds it."""
        return self.page.evaluate("() => app.graph.serialize()")

    def prompt(self) -> dict[str, Any]:
        """The graph in the API's form: what the page would queue."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def wait_for(self, condition: str, argument: Any = None) -> None:
        """Until JavaScript is true."""
        self.page.wait_for_function(condition, arg=argument, timeout=PATIENCE)

    def shot(self, name: str, target: Locator | None = None, *, readme: bool = False) -> Path:
        """A screenshot of an element or of the window, as a PNG for somebody to look at.

        Args:
            readme: one that the README shows; it goes into the repository where LOOM_WRITE is 1.
        """
        folder = PICTURES if readme and os.environ.get("LOOM_WRITE") == "1" else SHOTS
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"{name}.png"
        (target or self.page).screenshot(path=place)
        return place

    def close(self) -> None:
        self.page.context.close()


def open_page(browser: Browser, host: ComfyHost, *, width: int = 1500, height: int = 900) -> LoomPage:
    """A window on the host, which may ask nobody but the host."""
    context = browser.new_context(viewport={"width": width, "height": height})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=host.url)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()

    def guard(route: Route) -> None:
        local = route.request.url.startswith((host.url, "data:", "blob:"))
        route.continue_() if local else route.abort()

    page.route("**/*", guard)
    page.goto(host.url, wait_until="domcontentloaded", timeout=120_000)
    ready = "window.app?.graph && 'LoomLoraStack' in (window.LiteGraph?.registered_node_types ?? {})"
    page.wait_for_function(f"() => Boolean({ready})", timeout=120_000)
    # The dialog of templates, and that of models that are missing, lie over a fresh page.
    page.evaluate(
        """async () => {
            const settings = app.extensionManager.setting;
            await settings.set("Comfy.TutorialCompleted", true);
            await settings.set("Comfy.Workflow.ShowMissingModelsWarning", false);
            await settings.set("Comfy.Graph.CanvasMenu", false);
        }"""
    )
    page.wait_for_timeout(1000)
    page.keyboard.press("Escape")
    return LoomPage(page, host)
