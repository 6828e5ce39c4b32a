"""Named block weights: each means something on each family that has it."""

from __future__ import annotations

import pytest

from lora_core.architectures import ARCHITECTURES
from lora_core.block_presets import PRESETS, kinds_of, presets_for
from lora_core.blocks import parse_blocks, vector_layouts


@pytest.mark.parametrize("family", ARCHITECTURES.names)
def test_each_preset_of_a_family_is_a_text_that_it_takes(family: str) -> None:
    row = ARCHITECTURES.get(family)
    presets = presets_for(row)
    assert presets[0] == ("All blocks", "")
    assert len({name for name, _ in presets}) == len(presets) >= 3
    for name, text in presets[1:]:
        factors = parse_blocks(text, row)
        assert set(factors.values()) <= {0.0, 1.0}
        off = [block for block, factor in factors.items() if not factor]
        assert 0 < len(off) < len(row.blocks), name
        if "only" in name:
            assert set(factors) == set(row.blocks), name


def test_every_row_is_of_use_to_some_family() -> None:
    used = {name for row in ARCHITECTURES for name, _ in presets_for(row)}
    assert {row.name for row in PRESETS} <= used


def test_what_a_few_of_them_mean() -> None:
    sdxl, flux = ARCHITECTURES.get("sdxl"), ARCHITECTURES.get("flux")
    style = parse_blocks(dict(presets_for(sdxl))["Style block only (B-LoRA)"], sdxl)
    assert [block for block, factor in style.items() if factor] == ["out01"]
    single = parse_blocks(dict(presets_for(flux))["Single blocks only"], flux)
    assert [block for block, factor in single.items() if factor] == [f"single{n:02d}" for n in range(38)]
    presets, thirds = dict(presets_for(flux)), list[str]()
    for which in ("First", "Middle", "Last"):
        factors = parse_blocks(presets[f"{which} third of double only"], flux)
        thirds += [block for block, factor in factors.items() if factor]
    assert thirds == [f"double{n:02d}" for n in range(19)]


def test_kinds_and_vectors() -> None:
    assert kinds_of(ARCHITECTURES.get("sd15")) == {"base": 1, "in": 12, "mid": 1, "out": 12}
    assert [len(layout.cells) for layout in vector_layouts(ARCHITECTURES.get("sd15"))] == [26, 17, 27]
    assert [len(layout.cells) for layout in vector_layouts(ARCHITECTURES.get("flux"))] == [58]
    for row in ARCHITECTURES:
        lengths = [len(layout.cells) for layout in vector_layouts(row)]
        assert len(set(lengths)) == len(lengths)
