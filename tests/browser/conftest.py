"""One browser and one page per renderer of nodes, for all browser tests; they use the session's host (`ComfyHost`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

from browser.loom_page import PATIENCE, LoomPage, open_page
from host_harness.host import ComfyHost

RENDERERS = ("litegraph", "vue")
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    # The system's, or else the one that `playwright install chromium` brought.
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    browser = playwright.chromium.launch(
        executable_path=os.environ.get("LOOM_CHROMIUM") or installed,
        args=["--no-sandbox", "--disable-gpu", *quiet],
    )
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def opened(chromium: Browser, comfy: ComfyHost) -> Iterator[LoomPage]:
    page = open_page(chromium, comfy)
    yield page
    page.close()


@pytest.fixture(params=RENDERERS)
def loom(request: pytest.FixtureRequest, opened: LoomPage) -> Iterator[LoomPage]:
    """The page with an empty graph, once as LiteGraph draws nodes and once as Vue does ("Nodes 2.0").

    Afterwards it is a fault when the pack warned in the console.
    """
    opened.reset(vue=request.param == "vue")
    yield opened
    assert opened.complaints() == []


@pytest.fixture
def loom_vue(opened: LoomPage) -> Iterator[LoomPage]:
    """The page as ``loom``, in Nodes 2.0 alone."""
    opened.reset(vue=True)
    yield opened
    assert opened.complaints() == []


@pytest.fixture
def loom_canvas(opened: LoomPage) -> Iterator[LoomPage]:
    """The page as ``loom``, in LiteGraph alone: for what has nothing to do with how nodes are drawn."""
    opened.reset(vue=False)
    yield opened
    assert opened.complaints() == []
