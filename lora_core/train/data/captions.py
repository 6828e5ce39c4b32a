"""The caption of a draw: which alternative, what is dropped and shuffled, and the trigger in front.

Only what a rule changes is changed: without shuffling and dropping of tags a caption stays as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch

from ..config import DataSection
from ..seeds import fraction, generator
from .order import permutation

# More forms of one caption than this are not worth keeping: each is made when it is drawn.
MAX_FORMS = 256
# The innermost braces with a bar between; other braces are text.
_CHOICE = re.compile(r"\{([^{}|]*(?:\|[^{}|]*)+)\}")

Draw = Callable[[str], float]


def drawn_caption(
    captions: Sequence[str], rules: DataSection, seed: int, step: int, position: int, *, prior: bool = False
) -> str:
    """The caption of one draw, a function of (seed, step, position). Pictures of the class get no trigger."""

    def draw(what: str) -> float:
        return fraction(seed, what, step, position)

    if rules.caption_dropout and draw("caption dropout") < rules.caption_dropout:
        return ""
    caption = captions[int(draw("caption") * len(captions))]
    if rules.wildcards:
        caption = fill(caption, lambda number, count: int(draw(f"wildcard {number}") * count))
    if rules.shuffle_tags or rules.tag_dropout:
        caption = change_tags(caption, rules, draw, generator(seed, "tags", step, position))
    return caption if prior else with_trigger(caption, rules)


def plain_caption(captions: Sequence[str], rules: DataSection, *, prior: bool = False) -> str:
    """The first alternative with nothing dropped or shuffled: what validation goes by."""
    caption = fill(captions[0], lambda number, count: 0) if rules.wildcards else captions[0]
    return caption if prior else with_trigger(caption, rules)


def possible_captions(captions: Sequence[str], rules: DataSection, *, prior: bool = False) -> list[str] | None:
    """All captions that can be drawn, or None where there are too many to keep."""
    if rules.shuffle_tags or rules.tag_dropout:
        return None
    forms: list[str] = []
    for caption in captions:
        some = all_fillings(caption) if rules.wildcards else [caption]
        if some is None:
            return None
        forms += some
    kept = [form if prior else with_trigger(form, rules) for form in forms]
    return list(dict.fromkeys([*kept, *([""] if rules.caption_dropout else [])]))


def with_trigger(caption: str, rules: DataSection) -> str:
    """The trigger, then the caption, unless it begins with the trigger already."""
    if not rules.trigger or tags_of(caption, rules.separator)[:1] == [rules.trigger]:
        return caption
    return f"{rules.trigger}{rules.separator} {caption}" if caption else rules.trigger


def tags_of(caption: str, separator: str) -> list[str]:
    return [tag for part in caption.split(separator) if (tag := part.strip())]


def change_tags(caption: str, rules: DataSection, draw: Draw, random: torch.Generator) -> str:
    """Drop and shuffle the tags behind the first ``keep_tokens``."""
    tags = tags_of(caption, rules.separator)
    kept, loose = tags[: rules.keep_tokens], tags[rules.keep_tokens :]
    if rules.tag_dropout:
        loose = [tag for number, tag in enumerate(loose) if draw(f"tag {number}") >= rules.tag_dropout]
    if rules.shuffle_tags:
        loose = [loose[place] for place in permutation(len(loose), random)]
    return f"{rules.separator} ".join([*kept, *loose])


def fill(caption: str, choose: Callable[[int, int], int]) -> str:
    """Replace each ``{red|blue}`` by one of its parts, the innermost first.

    Args:
        choose: (number of the choice, number of its parts) -> which part.

    >>> fill("a {red|{dark|light} blue} car", lambda number, count: count - 1)
    'a light blue car'
    """
    number = 0
    while (found := _CHOICE.search(caption)) is not None:
        parts = found[1].split("|")
        caption = caption[: found.start()] + parts[choose(number, len(parts))] + caption[found.end() :]
        number += 1
    return caption


def all_fillings(caption: str) -> list[str] | None:
    """All texts that ``fill`` can make, or None where they are more than MAX_FORMS."""
    forms = {caption: None}
    done: dict[str, None] = {}
    while forms:
        form, _ = forms.popitem()
        found = _CHOICE.search(form)
        if found is None:
            done[form] = None
        else:
            for part in found[1].split("|"):
                forms[form[: found.start()] + part + form[found.end() :]] = None
        if len(forms) + len(done) > MAX_FORMS:
            return None
    return sorted(done)
