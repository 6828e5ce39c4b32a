"""Rows and LORA_STACK entries: ours and those of other packs."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.errors import ConfigError, LoomError
from lora_core.rows import Row, StackItem, parse_rows, parse_stack, stack_items


def test_a_row_with_all_fields():
    text = (
        '[{"on": false, "lora": "styles/ink.safetensors", "model": 0.8, "clip": 0, "blocks": "mid=0", "hash": "0a1"}]'
    )

    assert parse_rows(text) == (Row(False, "styles/ink.safetensors", 0.8, 0.0, "mid=0", "0a1"),)


def test_missing_fields_take_defaults_and_a_missing_clip_that_of_the_model():
    rows = parse_rows([{"lora": "a"}, {"lora": "b", "model": 0.5}, {"lora": "c", "model": 0.5, "clip": None}])

    assert rows == (Row(lora="a"), Row(lora="b", model=0.5, clip=0.5), Row(lora="c", model=0.5, clip=0.5))


def test_a_clip_strength_of_zero_is_zero():
    assert parse_rows([{"lora": "a", "model": 0.7, "clip": 0}])[0].clip == 0.0
    assert parse_rows([{"name": "a", "strength": 0.7, "clipStrength": 0}])[0].clip == 0.0
    assert parse_rows([{"lora": "a", "strength": 0.7, "strengthTwo": 0}])[0].clip == 0.0


@pytest.mark.parametrize("value", ["", "  ", "[]", None, [], (), {"__value__": []}, '{"__value__": []}'])
def test_no_rows(value: object):
    assert parse_rows(value) == ()


def test_the_forms_that_the_host_hands_over():
    rows = [{"lora": "a", "model": 2}]

    assert (
        parse_rows(rows) == parse_rows(json.dumps(rows)) == parse_rows({"__value__": rows}) == (Row(True, "a", 2, 2),)
    )


def test_rgthree_rows():
    rows = parse_rows(
        [
            {"on": True, "lora": "ink.safetensors", "strength": 0.8, "strengthTwo": None},
            {"on": False, "lora": "rain.safetensors", "strength": 1, "strengthTwo": 0.25},
            {"on": True, "lora": "None", "strength": 1, "strengthTwo": None},
        ]
    )

    assert rows == (
        Row(True, "ink.safetensors", 0.8, 0.8),
        Row(False, "rain.safetensors", 1.0, 0.25),
        Row(True, "", 1.0, 1.0),
    )
    assert [row.active for row in rows] == [True, False, False]


def test_lora_manager_rows():
    """It keeps numbers as text, and fields for its own page."""
    rows = parse_rows(
        [
            {"name": "ink", "strength": "0.80", "clipStrength": "0.5", "active": True, "expanded": False},
            {"name": "rain", "strength": 1, "active": False, "locked": True},
        ]
    )

    assert rows == (Row(True, "ink", 0.8, 0.5), Row(False, "rain", 1.0, 1.0))


def test_all_faults_of_all_rows_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_rows(
            [
                {"lora": "good"},
                {"lora": "a", "model": "abc", "clip": True},
                {"model": 1},
                {"lora": 5, "on": "yes", "modle": 1},
                "ink",
            ]
        )

    assert caught.value.faults == (
        "row 2: 'model' is 'abc', expected a number",
        "row 2: 'clip' is True, expected a number",
        "row 3: 'lora' is missing, expected the name of a LoRA",
        "row 4: no field 'modle', did you mean 'model'?",
        "row 4: 'on' is 'yes', expected true or false",
        "row 4: 'lora' is 5, expected a text",
        "row 5 is 'ink', expected an object like {'lora': 'ink.safetensors', 'model': 0.8}",
    )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), "nan", "1_0", "1e999", [1]])
def test_a_strength_is_a_finite_number(number: object):
    with pytest.raises(ConfigError, match=r"row 1: 'model' is .*expected a number"):
        parse_rows([{"lora": "a", "model": number}])


@pytest.mark.parametrize("text", ["{", "not json", "[" * 100_000, "5", '"ink"', "{}"])
def test_what_is_no_list_of_rows_is_refused(text: str):
    with pytest.raises(ConfigError, match=r"^rows: .*expected a list of rows"):
        parse_rows(text)


def test_a_stack_item_is_a_tuple_of_three_with_attributes():
    item = StackItem("ink.safetensors", 0.8, 0.5, blocks="mid=0", hash="0a1b", schedule="0@0,1@1")
    name, model, clip = item  # what other packs do

    assert (name, model, clip) == item == ("ink.safetensors", 0.8, 0.5)
    assert len(item) == 3
    for same in (item, copy.copy(item), copy.deepcopy([item])[0], pickle.loads(pickle.dumps(item))):
        assert (same.blocks, same.hash, same.schedule) == ("mid=0", "0a1b", "0@0,1@1")


def test_stacks_of_two_three_and_four_values_and_rows():
    items = parse_stack(
        [
            ("a", 0.5),
            ["b", 0.5, 0],
            ("c", 1, 1, "1,0,0.5"),
            ("d", 1, 1, [1, 0, 0.5]),
            {"lora": "e", "model": 0.3},
            {"name": "off", "active": False},
            {"on": True, "lora": "f", "strength": 0.1, "strengthTwo": 0.2},
        ]
    )

    assert items == (("a", 0.5, 0.5), ("b", 0.5, 0.0), ("c", 1, 1), ("d", 1, 1), ("e", 0.3, 0.3), ("f", 0.1, 0.2))
    assert [item.blocks for item in items] == ["", "", "1,0,0.5", "1,0,0.5", "", ""]


def test_our_items_keep_what_they_carry():
    item = StackItem("a", 1.0, 0.5, "mid=0", "0a1b", "0@0,1@1")

    (same,) = parse_stack([item])

    assert same.__getnewargs__() == item.__getnewargs__()
    assert parse_stack(None) == ()


def test_all_faults_of_a_stack_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_stack([("a",), ("b", "x", 1), "c", ("", 1, 1), ("d", 1, 1, [1, "R"])])

    assert str(caught.value) == (
        "LORA_STACK: entry 1 has 1 values, expected (name, model strength, clip strength); "
        "entry 2: 'model' is 'x', expected a number; entry 3 is a str, expected (name, strength, strength); "
        "entry 4 names no LoRA; entry 5: 'blocks' is [1, 'R'], expected a text"
    )
    with pytest.raises(ConfigError, match="a str, expected a list"):
        parse_stack("ink")


def test_rows_that_are_off_or_empty_are_not_in_the_stack():
    rows = [Row(lora="a", blocks="mid=0"), Row(on=False, lora="b"), Row(lora="")]

    assert stack_items(rows) == [("a", 1.0, 1.0)]
    assert stack_items(rows)[0].blocks == "mid=0"


@pytest.mark.parametrize("name", ["", None])
def test_a_row_with_a_hash_alone_is_in_the_stack(name: str | None):
    rows = parse_rows([{"lora": name, "model": 0.8, "hash": "abcdef123456"}])

    (item,) = stack_items(rows)

    assert item == ("", 0.8, 0.8)
    assert item.hash == "abcdef123456"
    assert parse_stack([item])[0].hash == "abcdef123456"
    assert not Row(on=False, hash="abcdef123456").active


numbers = st.floats(allow_nan=False, allow_infinity=False)
names = (
    st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])).map(str.strip).filter(lambda n: n != "None")
)
rows_of_users = st.lists(st.builds(Row, st.booleans(), names, numbers, numbers, names, names), max_size=5)


@given(rows_of_users)
def test_rows_survive_json(rows: list[Row]):
    assert parse_rows(json.dumps([asdict(row) for row in rows])) == tuple(rows)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)


@given(json_values | st.lists(st.fixed_dictionaries({}, optional={"lora": json_values, "strength": json_values})))
def test_any_json_is_parsed_or_refused(value: object):
    for parse in (parse_rows, parse_stack):
        fault = ""
        try:
            parse(value)
        except LoomError as error:
            fault = str(error)

        assert "\n" not in fault
