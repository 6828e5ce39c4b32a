"""Numbered modules: every way in which cloneofsimo's files count them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_core import Adapter, load_adapter, map_source
from lora_core.architectures import ARCHITECTURES
from lora_core.io import TensorDict

ATTENTION_1, ATTENTION_2 = (
    tuple(f"attn{number}.{leaf}" for leaf in ("to_q", "to_k", "to_v", "to_out.0")) for number in (1, 2)
)
FEED_FORWARD = ("ff.net.0.proj",)
ATTENTIONS = {
    "feed-forward between": (*ATTENTION_1, *FEED_FORWARD, *ATTENTION_2),
    "feed-forward last": (*ATTENTION_1, *ATTENTION_2, *FEED_FORWARD),
    "attentions alone": (*ATTENTION_1, *ATTENTION_2),
}
# SD 1.5 as diffusers lists its blocks.
BLOCKS = [
    *(f"down_blocks.{level}.attentions.{index}" for level in range(3) for index in range(2)),
    *(f"up_blocks.{level}.attentions.{index}" for level in range(1, 4) for index in range(3)),
    "mid_block.attentions.0",
]


def paths(order: str) -> list[str]:
    return [f"{block}.transformer_blocks.0.{leaf}" for block in BLOCKS for leaf in ATTENTIONS[order]]


def shape(path: str) -> tuple[int, ...]:
    sd15 = ARCHITECTURES.get("sd15").components[0]
    return sd15.modules[sd15.diffusers[path].path].shapes["weight"]


def pairs(order: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Up and down of each module, rank 1; the first number of the up factor is the module's."""
    found = []
    for number, path in enumerate(paths(order)):
        out, into = shape(path)[:2]
        found.append((torch.full((out, 1), float(number)), torch.ones(1, into)))
    return found


def check(adapter: Adapter, order: str) -> None:
    names = {location.path: path for path, location in ARCHITECTURES.get("sd15").components[0].diffusers.items()}
    assert adapter.report.complete
    assert adapter.report.format == "cloneofsimo"
    found = {names[target.module.path]: delta.factors() for target, delta in adapter.deltas}
    for number, path in enumerate(paths(order)):
        factors = found[path]
        assert factors is not None
        assert factors.up[0, 0] == number


@pytest.mark.parametrize("order", ATTENTIONS)
def test_the_shapes_tell_how_a_file_counts(order: str) -> None:
    tensors = {}
    for number, (up, down) in enumerate(pairs(order)):
        tensors |= {f"unet:{number}:up": up, f"unet:{number}:down": down}
    check(map_source(TensorDict(tensors, "krk.safetensors")), order)


@pytest.mark.parametrize("order", ATTENTIONS)
def test_a_pickled_list_is_up_and_down_in_turn(order: str, tmp_path: Path) -> None:
    torch.save([tensor for pair in pairs(order) for tensor in pair], tmp_path / "krk.pt")
    check(load_adapter(tmp_path / "krk.pt"), order)


def test_a_pickled_list_of_the_text_encoder(tmp_path: Path) -> None:
    tensors = [tensor for number in range(48) for tensor in (torch.full((768, 1), float(number)), torch.ones(1, 768))]
    torch.save(tensors, tmp_path / "krk.text_encoder.pt")
    adapter = load_adapter(tmp_path / "krk.text_encoder.pt", architecture="sd15")

    assert adapter.report.complete
    leaves = [target.module.path.rpartition(".")[2] for target, _ in adapter.deltas]
    assert leaves[:5] == ["k_proj", "v_proj", "q_proj", "out_proj", "k_proj"]
    assert {target.module.component for target, _ in adapter.deltas} == {"text_encoder"}
