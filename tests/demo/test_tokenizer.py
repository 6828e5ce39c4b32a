"""The small byte-pair vocabulary."""

from __future__ import annotations

from collections import Counter

from demo.build_tokenizer import (
    END,
    MAX_LENGTH,
    START,
    VOCABULARY,
    byte_symbols,
    caption_words,
    join_pair,
    learn_merges,
)
from demo.pipeline import MODEL


def test_merges_by_hand() -> None:
    assert join_pair(("a", "b", "a", "b</w>"), ("a", "b")) == ("ab", "a", "b</w>")
    words = Counter({"aab": 3, "ab": 2})
    # a b</w> occurs 5 times, a ab</w> 3 times.
    assert learn_merges(words, 5) == [("a", "b</w>"), ("a", "ab</w>")]


def test_words_are_cut_as_clip_cuts_them() -> None:
    assert caption_words(["Pool 8 ball", "t-shirt"]) == Counter(["pool", "8", "ball", "t", "-", "shirt"])


def test_every_byte_has_a_symbol() -> None:
    assert len(set(byte_symbols())) == 256


def test_files_read_by_transformers() -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    assert len(tokenizer) == VOCABULARY
    ids = tokenizer("Red heart", padding="max_length", max_length=MAX_LENGTH).input_ids
    assert len(ids) == MAX_LENGTH
    assert tokenizer.convert_ids_to_tokens(ids[:4]) == [START, "red</w>", "heart</w>", END]
    assert set(ids[4:]) == {VOCABULARY - 1}
