"""LoRA tags in prompts, in the dialects of three programs."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lora_core.architectures import ARCHITECTURES
from lora_core.blocks import parse_blocks
from lora_core.errors import ConfigError, LoomError, UnknownNameError
from lora_core.prompt import DIALECTS, PromptLora, parse_prompt


def only(text: str, dialect: str = "a1111") -> PromptLora:
    """The one LoRA of a text."""
    (lora,) = parse_prompt(text, dialect).loras
    return lora


@pytest.mark.parametrize(
    ("tag", "model", "clip"),
    [
        ("<lora:ink>", 1.0, 1.0),
        ("<lora:ink:0.8>", 0.8, 0.8),
        ("<lora:ink:0.5:0.8>", 0.8, 0.5),  # te, unet
        ("<lora:ink:te=0>", 0.0, 0.0),  # unet defaults to te
        ("<lora:ink:unet=0.3>", 0.3, 1.0),
        ("<lora:ink:0.8:unet=0.3>", 0.3, 0.8),
        ("<lora:ink:1:te=0.5:unet=-0.5>", -0.5, 0.5),
        ("<LORA: ink : 0.8 >", 0.8, 0.8),
        ("<lyco:ink:0.8>", 0.8, 0.8),
    ],
)
def test_a1111_has_the_text_encoder_first(tag: str, model: float, clip: float):
    lora = only(f"a cat {tag}")

    assert (lora.name, lora.model, lora.clip, lora.notes) == ("ink", model, clip, ())
    assert lora.item == ("ink", model, clip)


@pytest.mark.parametrize(
    ("tag", "model", "clip"),
    [
        ("<lora:ink>", 1.0, 1.0),
        ("<lora:ink:0.8>", 0.8, 0.8),
        ("<lora:ink:0.8:0>", 0.8, 0.0),
        ("<lora:ink::0>", 1.0, 0.0),
    ],
)
def test_lora_manager_has_the_model_first(tag: str, model: float, clip: float):
    lora = only(tag, "lora-manager")

    assert (lora.model, lora.clip) == (model, clip)


def test_block_weights_of_the_extension():
    lora = only("<lora:ink:1:0.5:lbw=1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1>")

    assert parse_blocks(lora.item.blocks, ARCHITECTURES.get("sd15"))["out11"] == 1.0
    assert only("<lora:ink:lbw=in=0.5, mid=0>").blocks == "in=0.5, mid=0"


def test_steps_are_carried_and_the_user_is_told_that_they_are_not_applied():
    lora = only("<lora:ink:1:start=5:stop=10>")

    assert lora.schedule == lora.item.schedule == "start=5,stop=10"
    assert lora.notes == (
        "<lora:ink:1:start=5:stop=10>: start=5,stop=10 (steps) is not applied: "
        "the LoRA is on from the first step to the last",
    )
    assert only("<lora:ink:1:step=5-10>").schedule == "start=5,stop=10"


def test_dyn_is_carried_and_noted():
    for tag in ("<lora:ink:1:1:4>", "<lora:ink:dyn=4>"):
        lora = only(tag)

        assert lora.dyn == 4
        assert "only 4 ranks" in lora.notes[0]


def test_sdnext_schedules():
    lora = only("<lora:ink:0.2@0.2,1@0.5>", "sdnext")

    assert (lora.model, lora.clip) == (1.0, 1.0)  # the last strength, as the schedule is not applied
    assert lora.schedule == "0.2@0.2,1@0.5"
    assert lora.notes == (
        "<lora:ink:0.2@0.2,1@0.5>: the schedule 0.2@0.2,1@0.5 of te is not applied: "
        "the strength is 1 from the first step on",
    )
    both = only("<lora:ink:te=0@0,1@0.5:unet=1@0,0@12>", "sdnext")
    assert (both.clip, both.model, both.schedule) == (1.0, 0.0, "clip=0@0,1@0.5;model=1@0,0@12")


def test_a_schedule_of_one_strength_says_whose_it_is():
    lora = only("<lora:ink:0.5:unet=0@0,1@1>", "sdnext")

    assert (lora.model, lora.clip, lora.schedule) == (1.0, 0.5, "model=0@0,1@1")


def test_sdnext_blocks_are_strengths_and_become_factors():
    """in=0.4 is a strength of 0.4, whatever the model's."""
    lora = only("<lora:ink:0.8:in=0.4:out=0>", "sdnext")

    factors = parse_blocks(lora.blocks, ARCHITECTURES.get("sdxl"))
    assert lora.model * factors["in04"] == 0.4
    assert factors["out00"] == 0.0
    assert "mid" not in factors


def test_sdnext_modules_are_noted():
    lora = only("<lora:ink:module=transformer_2>", "sdnext")

    assert lora.module == "transformer_2"
    assert "module=transformer_2 is not applied" in lora.notes[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat, <lora:ink:1>, night", "a cat, night"),
        ("a cat <lora:ink:1> at night", "a cat at night"),
        ("<lora:ink:1>, a cat", "a cat"),
        ("<lora:ink:1><lora:rain:1> a cat", "a cat"),
        ("a cat, <lora:ink:1>", "a cat"),
        ("a cat, <lora:ink:1>, <lora:rain:1>, night", "a cat, night"),
        ("(a cat<lora:ink:1>)", "(a cat)"),
        ("a cat,\n<lora:ink:1>\nnight", "a cat,\nnight"),
        ("a cat<lora:ink:1>, night", "a cat, night"),
        ("<lora:ink:1>", ""),
        ("", ""),
        ("a  cat,, night ,", "a  cat,, night ,"),  # not ours to tidy
        ("<lora:ink:1> a <b> c < d", "a <b> c < d"),
    ],
)
def test_the_text_is_tidy_where_tags_were(text: str, expected: str):
    assert parse_prompt(text).text == expected


def test_tags_keep_their_order_and_may_repeat():
    loras = parse_prompt("<lora:b:1> x <lora:styles/a b.safetensors:0.5><lora:b:2>").loras

    assert [(lora.name, lora.model) for lora in loras] == [("b", 1.0), ("styles/a b.safetensors", 0.5), ("b", 2.0)]


@pytest.mark.parametrize(
    ("tag", "dialect", "fault"),
    [
        ("<lora:ink:abc>", "a1111", "te is 'abc', expected a number"),
        ("<lora:ink:nan>", "a1111", "te is 'nan', expected a number"),
        ("<lora:ink:1,0,1>", "a1111", "te is '1,0,1', expected a number; block weights are written lbw=..."),
        ("<lora:ink:0.2@0.2,1@0.5>", "a1111", "te is '0.2@0.2,1@0.5', expected a number"),
        ("<lora:ink:weight=1>", "a1111", "no argument 'weight' in a1111; known: dyn, lbw, start, step, stop, te, unet"),
        ("<lora:ink:te=1>", "lora-manager", "no argument 'te' in lora-manager; known: none"),
        ("<lora:ink:1:2:3:4>", "a1111", "too many numbers at '4'; a1111 has te, unet, dyn"),
        ("<lora:ink:1:2>", "sdnext", "too many numbers at '2'; sdnext has te"),
        ("<lora:ink:te=>", "a1111", "te= has no value"),
        ("<lora:ink:te=1:te=2>", "a1111", "te= stands twice"),
        ("<lora:ink:dyn=2.5>", "a1111", "dyn is '2.5', expected a whole number"),
        ("<lora:ink:step=5>", "a1111", "step is '5', expected two steps such as 5-10"),
        ("<lora:ink:step=5-9:stop=7>", "a1111", "step= and start=, stop= exclude each other"),
        ("<lora:ink:start=9:stop=5>", "a1111", "stops at step 5, before it starts at 9"),
        ("<lora:ink:1@x>", "sdnext", "te is '1@x', expected a number"),
        ("<lora:ink:0:in=1>", "sdnext", "in=, mid=, out= need a model strength other than 0"),
        ("<lora:ink:1e-300:in=1e300>", "sdnext", "in=, mid=, out= are too large beside a model strength of 1e-300"),
        ("<lora::1>", "a1111", "no name"),
    ],
)
def test_a_fault_quotes_its_tag(tag: str, dialect: str, fault: str):
    with pytest.raises(ConfigError) as caught:
        parse_prompt(f"a cat {tag}", dialect)

    assert str(caught.value).startswith(f"prompt: {tag}: {fault}")


def test_all_faults_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_prompt("<lora:a:x> <lora:b:1> <lora:c:y:z> <lora:d:1")

    assert len(caught.value.faults) == 4
    assert caught.value.faults[-1] == "<lora:d:1 has no > at its end"


def test_tags_of_other_kinds_are_left_and_named():
    prompt = parse_prompt("<hypernet:old:1> a cat")

    assert prompt.text == "<hypernet:old:1> a cat"
    assert prompt.notes == ("<hypernet:old:1> is not a LoRA; it is left in the text",)


def test_an_unknown_dialect_names_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'a1111'"):
        parse_prompt("", "A1111")


@given(
    st.text(alphabet=st.sampled_from("<>lora:ink0.15@,=te unet-\nin"), max_size=60) | st.text(),
    st.sampled_from(list(DIALECTS)),
)
@example("<lora:a:1e999>", "a1111")
@example("<lora:a:in=1e300:1e-300>", "sdnext")
@example("<lora:a:-0@0>", "sdnext")
def test_any_text_is_parsed_or_refused_with_one_line(text: str, dialect: str):
    prompt, fault = None, ""
    try:
        prompt = parse_prompt(text, dialect)
    except LoomError as error:
        fault = str(error)

    assert "\n" not in fault
    if prompt:
        assert "<lora:" not in prompt.text.lower()
        assert prompt.text == text or prompt.loras
