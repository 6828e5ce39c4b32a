"""Files that are made to harm: names and headers that cost more than they hold. A hang is a timeout here."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_core.architectures import ARCHITECTURES
from lora_core.blocks import parse_blocks
from lora_core.errors import ConfigError, CorruptFileError, LoomError
from lora_core.formats import FORMATS
from lora_core.io import TensorDict, TensorFile
from lora_core.io.header import MAX_COMMAS, MAX_CONTAINERS, MAX_NAME
from lora_core.io.pickled import TensorPickle
from lora_core.mapping import map_source

HALF = 500_000
# Parts that are in the patterns of names, many times over: what backtracks would do so here for hours.
LONG = {
    "dots": "." * HALF,
    "words": "a." * HALF,
    "digits": "1" * HALF + "." + "1" * HALF,
    "underscores": "lora_unet_" + "_" * HALF + ".lora_down.weight",
    "leaked names": "unet.x.lora_A" + "_1" * HALF + ".weight",
    "defaults": "x" + ".default" * HALF + ".weight",
    "old names": "unet.x" + ".to_q_lora" * HALF + ".down.weight",
    "projections": "x" + ".q_proj" * HALF + ".to_k_lora.up.weight",
    "blocks": "double_blocks." + "1" * HALF + ".processor.qkv_lora.down.weight",
    "numbered": "unet:" + "1" * HALF + ":up",
    "prefixes": "base_model.model." * 100_000 + "lora_A.weight",
    "embedding": "bundle_emb." + "a." * HALF + "clip_l",
}


@pytest.mark.parametrize("case", LONG)
def test_a_name_of_a_million_characters_is_split_at_once(case: str) -> None:
    for scheme in FORMATS:
        scheme.split(LONG[case])
    with pytest.raises(LoomError):
        map_source(TensorDict({LONG[case]: torch.ones(1)}))


def header_of(path: Path, text: bytes) -> Path:
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return path


ENTRY = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
COSTLY: dict[str, bytes] = {
    "a name of a million characters": b'{"' + b"a." * HALF + b'":' + ENTRY + b"}",
    "lists": b'{"a":[' + b"[]," * MAX_CONTAINERS + b"[]]}",
    "numbers": b'{"a":[' + b"300," * (MAX_COMMAS + 1) + b"1]}",
    "tables": b'{"__metadata__":{' + b'"a":{},' * MAX_CONTAINERS + b'"b":{}}}',
}


@pytest.mark.parametrize("case", COSTLY)
def test_a_header_costs_no_more_than_it_holds(tmp_path: Path, case: str) -> None:
    path = header_of(tmp_path / "costly.safetensors", COSTLY[case])
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFileError) as caught:
            TensorFile(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * path.stat().st_size  # the text as bytes and as characters, and what is made of its names
    assert len(caught.value.message) < 300


def test_a_pickle_with_a_long_name_is_refused(tmp_path: Path) -> None:
    torch.save({"a" * (MAX_NAME + 1): torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(CorruptFileError, match="a tensor's name has 4001 characters"):
        TensorPickle(tmp_path / "a.pt")


def test_block_weights_of_digits_and_spaces() -> None:
    text = "in" + "1" * HALF + " " * HALF + "x=1"
    with pytest.raises(ConfigError):
        parse_blocks(text, ARCHITECTURES.get("sd15"))


def test_many_patterns_for_many_modules() -> None:
    """Settings with a rule per module of a large file, none of which is for any of them."""
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    patterns: dict[str, Any] = {f"some.module.{number}": 1 for number in range(20_000)}
    settings = json.dumps({"unet.lora_alpha": 4, "unet.alpha_pattern": patterns})
    tensors = {f"unet.{name}.lora_A.weight": torch.ones(4, 320), f"unet.{name}.lora_B.weight": torch.ones(320, 4)}
    adapter = map_source(TensorDict(tensors, metadata={"lora_adapter_metadata": settings}))
    assert [delta.scale for _, delta in adapter.deltas] == [1.0]
