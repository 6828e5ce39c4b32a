"""A library has q, k and v in three layers, the family in one matrix: its change is all three."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import torch
from torch import nn

from lora_core.architectures import Architecture
from lora_core.architectures.spec import Module, linear, rows_of, swapped, transformer
from lora_core.train.config import NetworkSection, TextEncoderSection
from lora_core.train.denoiser import Denoiser
from lora_core.train.network import Network
from lora_core.types import DENOISER, ModuleKey

WIDTH = 8


def family() -> Architecture:
    modules = {
        "blocks.0.attn.qkv": Module("blocks.0.attn.qkv", linear(3 * WIDTH, WIDTH), "", "block00"),
        "blocks.0.attn.mod": Module("blocks.0.attn.mod", linear(2 * WIDTH, WIDTH), "", "block00"),
    }
    layer = "transformer_blocks.0.attn"
    names = (f"{layer}.to_q", f"{layer}.to_k", f"{layer}.to_v")
    aliases = {
        **rows_of("blocks.0.attn.qkv", names, (WIDTH,) * 3),
        f"{layer}.linear": swapped("blocks.0.attn.mod", WIDTH),
    }
    return Architecture("fused", "Fused", lambda: (transformer(modules, aliases),))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.linear = nn.Linear(WIDTH, 2 * WIDTH)


def test_rows_of_a_matrix_and_halves_the_other_way_round() -> None:
    model = nn.ModuleDict({"transformer_blocks": nn.ModuleList([nn.ModuleDict({"attn": Attention()})])})
    denoiser = SimpleNamespace(architecture=family(), parts={DENOISER: model}, path_of=lambda component, path: None)
    section = NetworkSection(rank=2, targets="attention", block_ranks={"block00": 3})
    network = Network.attach(cast(Denoiser, denoiser), section, TextEncoderSection(), 0, 1e-4)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    part = network.parts[DENOISER]
    assert {layer.rank for layer in part.layers.values()} == {3}
    deltas = network.deltas()
    assert list(deltas) == [ModuleKey(DENOISER, "blocks.0.attn.qkv"), ModuleKey(DENOISER, "blocks.0.attn.mod")]
    layer = "transformer_blocks.0.attn"
    expected = torch.cat([part.change(f"{layer}.{name}") for name in ("to_q", "to_k", "to_v")])
    assert torch.equal(deltas[ModuleKey(DENOISER, "blocks.0.attn.qkv")], expected)
    first, second = part.change(f"{layer}.linear").chunk(2)
    assert torch.equal(deltas[ModuleKey(DENOISER, "blocks.0.attn.mod")], torch.cat([second, first]))
