"""What a page is told of one file: cleaned and bounded."""

from __future__ import annotations

from lora_core.library.about import MAX_KEYS, MAX_TENSORS, shown_metadata, shown_report


def test_metadata_are_cut_cleaned_and_without_the_thumbnail() -> None:
    header = {
        "ss_tag_frequency": "x" * 100_000,
        "modelspec.title": "a\0b\u202e<b>",
        "modelspec.thumbnail": "data:image/png;base64,AAAA",
        "k" * 10_000: "v",
    }
    shown = shown_metadata(header)
    assert shown["ss_tag_frequency"] == "x" * 20_000 + " [...]"
    assert shown["modelspec.title"] == "ab<b>"
    assert "modelspec.thumbnail" not in shown
    assert max(map(len, shown)) == 200
    assert len(shown_metadata({str(number): "" for number in range(10 * MAX_KEYS)})) == MAX_KEYS


def test_long_lists_of_keys_are_cut_and_counted() -> None:
    tensors = {"total": 5, "used": 1, "unmatched": ["k"] * (MAX_TENSORS + 7), "ignored": {"a": "b"}, "misfit": []}
    shown = shown_report({"file": "/home/x/ink.pt", "tensors": tensors, "ranks": {}}, "ink.pt")
    assert shown["file"] == "ink.pt"
    assert isinstance(shown["tensors"], dict)
    assert (len(shown["tensors"]["unmatched"]), shown["tensors"]["left_out"]) == (MAX_TENSORS, 7)
    whole = shown_report({"file": "", "tensors": tensors | {"unmatched": []}}, "ink.pt")
    assert "left_out" not in whole["tensors"]  # type: ignore[operator]
