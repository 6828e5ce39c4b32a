"""The pack in the page: it is loaded, quiet, and its nodes are there."""

from __future__ import annotations

import pytest

from browser.loom_page import LoomPage

pytestmark = pytest.mark.browser


def test_the_rows_are_a_widget_whose_value_is_what_the_api_gets(loom: LoomPage) -> None:
    stack = loom.add_node("LoomLoraStack", size=(420, 300))
    loom.set_widget(stack, "rows", [{"on": True, "lora": "ink.safetensors", "model": 0.8, "clip": 0.5}])
    inputs = loom.prompt()[str(stack)]["inputs"]
    assert inputs["rows"] == {"__value__": loom.widget(stack, "rows")}
    loom.shot(f"first_{'vue' if loom.vue else 'litegraph'}")
