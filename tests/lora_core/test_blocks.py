"""Block weights: what other tools write, put on the blocks of the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.architectures import ARCHITECTURES, Module
from lora_core.architectures.spec import Architecture
from lora_core.blocks import VECTORS, Vector, parse_blocks, parse_presets
from lora_core.errors import ConfigError, LoomError
from lora_core.stack import Strengths

SD15 = ARCHITECTURES.get("sd15")
SDXL = ARCHITECTURES.get("sdxl")


def numbers(count: int) -> str:
    """A vector of different numbers: 0, 0.5, 1, ..."""
    return ",".join(str(index / 2) for index in range(count))


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_text_is_no_block_weights(text: str):
    assert parse_blocks(text, SD15) == {}


def test_names_come_from_the_architecture():
    factors = parse_blocks("in04=0.5, mid=0, out1-3=-1", SD15)

    assert factors == {"in04": 0.5, "mid": 0.0, "out01": -1.0, "out02": -1.0, "out03": -1.0}
    assert Strengths(model=0.8, blocks=factors).of("denoiser", "in04") == 0.4


def test_names_may_be_written_loosely():
    assert parse_blocks("IN4 = .5,\n MID=1e-1 ,", SD15) == {"in04": 0.5, "mid": 0.1}


def test_a_kind_without_a_number_is_all_its_blocks_and_the_later_item_wins():
    factors = parse_blocks("in=0, in04=1", SDXL)

    assert factors == {f"in{index:02d}": float(index == 4) for index in range(9)}


def test_17_numbers_are_the_attention_blocks_of_sd():
    factors = parse_blocks(numbers(17), SD15)

    assert " ".join(factors) == (
        "base in01 in02 in04 in05 in07 in08 mid out03 out04 out05 out06 out07 out08 out09 out10 out11"
    )
    assert factors["base"] == 0.0
    assert factors["in05"] == 2.0
    assert factors["mid"] == 3.5
    assert factors["out11"] == 8.0


def test_12_numbers_are_the_attention_blocks_of_sdxl():
    factors = parse_blocks(numbers(12), SDXL)

    assert " ".join(factors) == "base in04 in05 in07 in08 mid out00 out01 out02 out03 out04 out05"
    assert factors["mid"] == 2.5
    assert factors["out05"] == 5.5


@pytest.mark.parametrize(("architecture", "count"), [(SD15, 26), (SDXL, 20)])
def test_a_number_for_each_block_is_always_right(architecture: Architecture, count: int):
    factors = parse_blocks(numbers(count), architecture)

    assert list(factors) == list(architecture.blocks)
    assert list(factors.values()) == [index / 2 for index in range(count)]


def test_inspires_vectors_have_three_numbers_for_the_middle_and_none_for_the_first_block():
    factors = parse_blocks("1," + "0.5," * 8 + "0,0,0," + "2," * 9, SDXL)  # 1 + 8 + 3 + 9 = 21

    assert "in00" not in factors
    assert factors == (
        {"base": 1.0} | {f"in0{n}": 0.5 for n in range(1, 9)} | {"mid": 0.0} | {f"out0{n}": 2.0 for n in range(9)}
    )
    assert set(parse_blocks(",".join(["1"] * 27), SD15)) == set(SD15.blocks) - {"in00"}


def test_three_different_numbers_for_the_middle_are_an_error():
    with pytest.raises(ConfigError, match="3 different numbers for mid"):
        parse_blocks("1," + "1," * 8 + "0,1,0," + "1," * 9, SDXL)


@pytest.mark.parametrize(("architecture", "count"), [(SD15, 12), (SD15, 20), (SDXL, 17), (SDXL, 26), (SD15, 1)])
def test_a_vector_of_another_model_says_what_was_expected(architecture: Architecture, count: int):
    with pytest.raises(ConfigError) as caught:
        parse_blocks(numbers(count), architecture)

    lengths = "26 .*, 17 .*, 27 " if architecture is SD15 else "20 .*, 12 .*, 21 "
    assert caught.match(f"{count} numbers, expected for {architecture.title}: {lengths}")


def test_inspires_percent_form_counts_from_one():
    factors = parse_blocks("%default=0.5, base=1, in1-4=0, out3=2, mid=0.25", SD15)

    assert factors["base"] == 1.0
    assert [factors[f"in0{n}"] for n in range(6)] == [0.5, 0.0, 0.0, 0.0, 0.0, 0.5]
    assert factors["mid"] == 0.25
    assert [factors[f"out0{n}"] for n in range(4)] == [0.5, 0.5, 2.0, 0.5]
    assert len(factors) == 26


def test_percent_without_a_default_leaves_the_others_alone():
    assert parse_blocks("%out1-2=0, mid1-3=0.5", SDXL) == {"mid": 0.5, "out00": 0.0, "out01": 0.0}


def test_a_percent_block_that_the_model_lacks_is_an_error():
    with pytest.raises(ConfigError, match="no block named 'out09'"):
        parse_blocks("%out10=0", SDXL)
    with pytest.raises(ConfigError, match="counted from 1"):
        parse_blocks("%out0=0", SDXL)


def test_presets_are_used_by_name_or_by_their_line():
    presets = parse_presets(
        "# the face\nFACE:1,0,0,0,0,0,0,0,1,1,1,0,0,0,0,0,0\n\n@plot:17,12\nSOFT: in=0.5, out=0.5\n"
    )

    assert list(presets) == ["FACE", "SOFT"]
    assert parse_blocks("FACE", SD15, presets)["out04"] == 1.0
    assert parse_blocks("FACE:1,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0", SD15)["in01"] == 1.0
    assert parse_blocks("SOFT", SDXL, presets)["out08"] == 0.5


def test_faults_in_presets_are_listed_with_their_lines():
    with pytest.raises(ConfigError) as caught:
        parse_presets("A:1,2\nno colon\n:1,2")

    assert str(caught.value) == (
        "block weight presets: line 2: 'no colon' is not NAME:v,v,...; line 3: ':1,2' is not NAME:v,v,..."
    )


def test_an_unknown_preset_is_named_with_those_that_exist():
    with pytest.raises(ConfigError, match=r"'OUTALL' is neither .* \(presets: FACE\)"):
        parse_blocks("OUTALL", SD15, {"FACE": "1"})


@pytest.mark.parametrize("letter", ["R", "r", "U", "X", "A", "b"])
def test_letters_of_other_tools_are_refused_by_name(letter: str):
    text = ",".join(["1"] * 16 + [letter])

    with pytest.raises(ConfigError, match=f"number 17 is '{letter}' .*not supported: write a number"):
        parse_blocks(text, SD15)


def test_all_faults_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_blocks("in99=1, middle=0, out1=y, out2, out3=nan, out4-2=1", SD15)

    assert len(caught.value.faults) == 6
    assert "no block named 'in99'" in caught.value.faults[0]
    assert "did you mean 'mid'?" in caught.value.faults[1]
    assert caught.value.faults[2] == "out1 is 'y', expected a number"
    assert caught.value.faults[3] == "'out2' is not block=number"


def test_several_numbers_in_one_cell_are_refused():
    with pytest.raises(ConfigError, match=r"number 2 is '1 0\.5': a block takes one number"):
        parse_blocks("1,1 0.5" + ",1" * 15, SD15)


def test_other_families_have_their_own_blocks():
    """A transformer's blocks need nothing here but their names in the architecture's data."""
    paths = [("img_in", "base"), *[(f"double_blocks.{n}", f"double{n:02d}") for n in range(3)], ("s.0", "single00")]
    modules = {path: Module(path, {"weight": (4, 4)}, path, block) for path, block in paths}
    component = replace(SD15.components[0], modules=modules)
    dit = Architecture("dit", "A transformer", lambda: (component,))

    assert parse_blocks("double1-2=0.5, single=0", dit) == {"double01": 0.5, "double02": 0.5, "single00": 0.0}
    assert parse_blocks("1,0,0.5,0.25,2", dit)["double02"] == 0.25
    assert parse_blocks("%default=1, double1=0", dit)["double00"] == 0.0


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.source)
def test_every_cell_of_a_layout_is_a_block_of_its_models(vector: Vector):
    assert set(vector.cells) <= set(vector.blocks)
    assert vector.blocks in {row.blocks for row in ARCHITECTURES}


@given(st.text(alphabet="in0124mid-out=,.%:RX \nbase default;+e", max_size=60))
def test_any_text_is_parsed_or_refused_with_one_line(text: str):
    factors, fault = {}, ""
    try:
        factors = parse_blocks(text, SD15)
    except LoomError as error:
        fault = str(error)

    assert set(factors) <= set(SD15.blocks)
    assert "\n" not in fault


def test_a_preset_in_a_preset_has_an_end() -> None:
    """Found by hypothesis: each name in front of a colon was one more call."""
    with pytest.raises(ConfigError):
        parse_blocks("a:" * 5_000, SD15)
    with pytest.raises(ConfigError):
        parse_blocks("A", SD15, {"A": "A"})
