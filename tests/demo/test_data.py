"""The committed pictures: whole, small, the same names in both styles, food apart."""

from __future__ import annotations

import pytest
from PIL import Image

from demo.dataset import DATA, FLAT, HIGH_CONTRAST, Item, load_images, read_items, select

STYLES = (FLAT, HIGH_CONTRAST)


@pytest.fixture(scope="module", params=STYLES)
def items(request: pytest.FixtureRequest) -> list[Item]:
    return read_items(request.param)


def test_both_styles_have_the_same_rows() -> None:
    flat, contrast = ([(i.path.name, i.text, i.group, i.split) for i in read_items(s)] for s in STYLES)
    assert flat == contrast


def test_counts_and_splits(items: list[Item]) -> None:
    base, food = select(items, food=False), select(items, food=True)
    assert 300 <= len(base) <= 400
    assert 80 <= len(food) <= 110
    for part in (base, food):
        train, held = select(part, split="train"), select(part, split="heldout")
        assert len(train) + len(held) == len(part)
        assert len(held) == round(len(part) * 0.2)
        assert not {i.text for i in train} & {i.text for i in held}


def test_captions_are_short_and_unique(items: list[Item]) -> None:
    texts = [item.text for item in items]
    assert len(set(texts)) == len(texts)
    assert all(text == text.lower() and len(text.split()) <= 4 for text in texts)


def test_pictures_match_metadata(items: list[Item]) -> None:
    folder = items[0].path.parent
    assert {item.path.name for item in items} == {path.name for path in folder.glob("*.png")}
    for item in items:
        with Image.open(item.path) as picture:
            assert picture.size == (64, 64)


def test_styles_look_as_they_are_named() -> None:
    flat, contrast = (load_images(read_items(style)) for style in STYLES)
    assert flat.min() >= -1
    assert flat.max() <= 1
    # High-Contrast is black and white: the three channels agree.
    assert (contrast.amax(dim=1) - contrast.amin(dim=1)).max() < 0.05
    assert (flat.amax(dim=1) - flat.amin(dim=1)).mean() > 0.2


def test_licences_and_size() -> None:
    for style in STYLES:
        text = (DATA / style / "LICENSE.txt").read_text(encoding="utf-8")
        assert "MIT License" in text
        assert "Microsoft" in text
    assert sum(path.stat().st_size for path in DATA.rglob("*")) < 4_000_000
