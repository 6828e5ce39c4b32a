"""What becomes of a caption when it is drawn."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from lora_core.train.config import DataSection, TokensSection
from lora_core.train.data.captions import MAX_FORMS, drawn_caption, plain_caption, possible_captions
from lora_core.train.data.templates import captions_of

TAGS = "1girl, red hair, smile, hat"


def rules(**settings: Any) -> DataSection:
    return DataSection(**settings)


def many(captions: list[str], section: DataSection, count: int = 2000, **how: Any) -> Counter[str]:
    return Counter(drawn_caption(captions, section, 0, step, 0, **how) for step in range(count))


def test_without_rules_a_caption_stays_as_it_was_written():
    caption = "a  {odd} caption ,with its  own spaces"

    assert many([caption], rules(), 10) == {caption: 10}
    assert possible_captions([caption], rules()) == [caption]


def test_the_trigger_stands_in_front_once():
    section = rules(trigger="sks")

    assert plain_caption(["a dog"], section) == "sks, a dog"
    assert plain_caption(["sks, a dog"], section) == "sks, a dog"
    assert plain_caption([""], section) == "sks"
    assert plain_caption(["a dog"], section, prior=True) == "a dog"


def test_a_share_of_captions_is_dropped_with_their_trigger():
    seen = many([TAGS], rules(caption_dropout=0.25, trigger="sks"))

    assert set(seen) == {"", f"sks, {TAGS}"}
    # 2,000 draws of share 0.25: the standard deviation is 19.
    assert abs(seen[""] - 500) < 100


def test_tags_are_shuffled_behind_those_that_are_kept():
    seen = many([TAGS], rules(shuffle_tags=True, keep_tokens=2), 200)

    assert set(seen) == {"1girl, red hair, smile, hat", "1girl, red hair, hat, smile"}


def test_tags_are_dropped_behind_those_that_are_kept():
    seen = many([TAGS], rules(tag_dropout=0.5, keep_tokens=1))

    assert all(caption.startswith("1girl") for caption in seen)
    assert len(seen) == 8
    assert abs(sum(count for caption, count in seen.items() if "hat" in caption) - 1000) < 150


def test_another_separator():
    seen = many(["a;b; c"], rules(separator=";", shuffle_tags=True), 200)

    assert set(seen) == {"a; b; c", "a; c; b", "b; a; c", "b; c; a", "c; a; b", "c; b; a"}


def test_one_of_several_captions_is_drawn():
    seen = many(["short", "a longer one"], rules())

    assert set(seen) == {"short", "a longer one"}
    assert abs(seen["short"] - 1000) < 150


def test_wildcards_are_one_of_their_parts_the_innermost_first():
    section = rules(wildcards=True)
    forms = ["a blue car", "a dark red car", "a light red car"]

    assert sorted(many(["a {blue|{dark|light} red} car"], section, 200)) == forms
    assert sorted(possible_captions(["a {blue|{dark|light} red} car"], section) or []) == forms
    assert plain_caption(["a {blue|red} {car|bus}"], section) == "a blue car"


def test_braces_without_a_bar_are_text_and_without_wildcards_all_are():
    assert plain_caption(["{x} {a|b}"], rules(wildcards=True)) == "{x} a"
    assert plain_caption(["{x} {a|b}"], rules()) == "{x} {a|b}"


def test_captions_with_too_many_forms_are_not_kept():
    assert possible_captions([TAGS], rules(shuffle_tags=True)) is None
    assert possible_captions(["{a|b}" * 20], rules(wildcards=True)) is None
    assert len(possible_captions(["{a|b}" * 7], rules(wildcards=True)) or []) == 128 < MAX_FORMS


@pytest.mark.parametrize(
    "settings",
    [
        {"caption_dropout": 0.5, "trigger": "sks"},
        {"wildcards": True, "caption_dropout": 0.1},
        {"wildcards": True, "trigger": "a dog"},
    ],
)
def test_what_is_drawn_is_among_what_is_possible(settings: dict[str, Any]):
    captions = ["a {red|blue} hat, {one|two|three}", "plain"]

    assert set(many(captions, rules(**settings), 500)) == set(possible_captions(captions, rules(**settings)) or [])


def test_a_draw_is_a_function_of_seed_step_and_position():
    section = rules(shuffle_tags=True, caption_dropout=0.1, tag_dropout=0.1)

    def draw(seed: int, step: int, position: int) -> str:
        return drawn_caption([TAGS, "b, c, d, e, f"], section, seed, step, position)

    assert [draw(0, step, 3) for step in range(50)] == [draw(0, step, 3) for step in range(50)]
    assert [draw(0, step, 3) for step in range(50)] != [draw(0, step, 4) for step in range(50)]
    assert [draw(0, step, 3) for step in range(50)] != [draw(1, step, 3) for step in range(50)]


@pytest.mark.parametrize("kind", ["object", "style"])
def test_templates_hold_all_placeholder_words(kind: str):
    captions = captions_of(TokensSection(names=("<s1>", "<s2>"), start=("dog", "<zero>"), templates=kind))  # type: ignore[arg-type]

    assert len(set(captions)) == len(captions) >= 10
    assert all("<s1><s2>" in caption for caption in captions)
    assert captions_of(TokensSection()) == ()
