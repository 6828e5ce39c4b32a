"""Rows out of what users paste: rows, nodes and graphs of three programs, and tags."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core import pasted as module
from lora_core.pasted import read_pasted
from lora_core.rows import Row

INK = {"on": True, "lora": "ink", "model": 0.8, "clip": 0.5, "blocks": "mid=0", "hash": ""}
RGTHREE = {"on": False, "lora": "styles\\rain.safetensors", "strength": 0.7, "strengthTwo": None}
MANAGER = {"name": "snow", "strength": "0.80", "active": True, "expanded": False, "clipStrength": "0"}
ROWS = (
    Row(True, "ink", 0.8, 0.5, "mid=0"),
    Row(False, "styles\\rain.safetensors", 0.7, 0.7),
    Row(True, "snow", 0.8, 0.0),
)


@pytest.mark.parametrize(
    "value",
    [
        [INK, RGTHREE, MANAGER],
        json.dumps([INK, RGTHREE, MANAGER]),
        {"__value__": [INK, RGTHREE, MANAGER]},
        {"rows": [INK, RGTHREE, MANAGER]},
        [[INK, RGTHREE], [MANAGER]],
        # As nodes are copied from a graph, and as an API graph has them.
        {"nodes": [{"widgets_values": [[INK]]}, {"widgets_values": [{}, {"type": "Header"}, RGTHREE, "", [MANAGER]]}]},
        {
            "1": {"class_type": "LoomLoraStack", "inputs": {"rows": {"__value__": [INK]}}},
            "2": {"class_type": "Power Lora Loader (rgthree)", "inputs": {"model": ["1", 0], "lora_1": RGTHREE}},
            "3": {
                "class_type": "LoraManager",
                "inputs": {"text": "<lora:snow:1>", "loras": {"__value__": [MANAGER]}},
            },
        },
    ],
)
def test_rows_are_found_wherever_they_are(value: object) -> None:
    found = read_pasted(value)
    assert found.rows == ROWS
    assert found.faults == ()


def test_one_row_alone_and_one_by_its_hash() -> None:
    assert read_pasted(json.dumps(INK)).rows == ROWS[:1]
    assert read_pasted([{"lora": "", "hash": "0123456789ab", "model": 0.5}]).rows == (
        Row(True, "", 0.5, 0.5, "", "0123456789ab"),
    )


def test_a_faulty_row_does_not_lose_the_good_ones() -> None:
    found = read_pasted([INK, {"lor": "x"}, 3, {"lora": "y", "model": "much"}, RGTHREE])
    assert found.rows == ROWS[:2]
    assert found.faults == (
        "row 2: no field 'lor', did you mean 'lora'?",
        "row 2: 'lora' is missing, expected the name of a LoRA",
        "row 3 is 3, expected an object like {'lora': 'ink.safetensors', 'model': 0.8}",
        "row 4: 'model' is 'much', expected a number",
    )


def test_empty_choices_are_passed_over() -> None:
    assert read_pasted([{**RGTHREE, "lora": "None"}, INK]).rows == ROWS[:1]


def test_tags_have_the_models_strength_first_as_lora_manager_copies_them() -> None:
    found = read_pasted("a cat <lora:ink:0.8:0.5>, <LORA:rain:0.7> and <lora:snow>")
    assert [(row.lora, row.model, row.clip) for row in found.rows] == [
        ("ink", 0.8, 0.5),
        ("rain", 0.7, 0.7),
        ("snow", 1.0, 1.0),
    ]
    assert found.faults == ()


def test_a_tag_that_lora_manager_cannot_read_is_read_as_a1111_does() -> None:
    found = read_pasted("<lora:ink:1:0.8:lbw=mid=0> <lora:rain:0.2@0.2,1@0.5> <lora:snow:x> <lora:fog")
    assert found.rows[:1] == (Row(True, "ink", 0.8, 1.0, "mid=0"),)
    assert found.rows[1].model == 1.0
    assert "the schedule 0.2@0.2,1@0.5" in found.faults[0]
    assert found.faults[-2:] == ("<lora:snow:x>: unet is 'x', expected a number", "<lora:fog has no > at its end")


@pytest.mark.parametrize("value", ["", "hello", [], {}, None, 5, [[]], {"nodes": []}, [["ink", 1.0, 1.0]]])
def test_nothing_in_it_is_a_fault(value: object) -> None:
    found = read_pasted(value)
    assert found.rows == ()
    assert len(found.faults) == 1
    assert found.faults[0].startswith("no LoRA in it")


def test_what_is_no_json_says_so() -> None:
    (fault,) = read_pasted('[{"lora": "ink"').faults
    assert fault.startswith("not JSON (")
    assert read_pasted('{"text": <lora:ink:0.5>').rows == (Row(True, "ink", 0.5, 0.5),)


def test_there_are_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    deep: Any = INK
    for _ in range(100):
        deep = {"inside": [deep]}
    assert read_pasted(deep).rows == ()
    assert len(read_pasted("[" * 100_000).faults) == 1
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    assert read_pasted([INK] * 5).rows == ROWS[:1] * 3
    assert read_pasted([INK] * 5).faults == ("more than 3 rows: those after are left out",)
    assert len(read_pasted("<lora:ink>" * 5).rows) == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.sampled_from(["<lora:a:1>", "lora"]),
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(st.sampled_from(["lora", "name", "on", "model", "strength", "rows", "x"]), inside, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
def test_nothing_raises(value: object) -> None:
    for row in read_pasted(value).rows:
        assert row.lora or row.hash
