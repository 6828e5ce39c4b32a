"""Strengths by component and block, and what tells stacks apart."""

from __future__ import annotations

import torch

from lora_core import Adapter, Stack, StackEntry, Strengths, map_source
from lora_core.io import TensorDict
from lora_core.types import DENOISER, TEXT_ENCODER

NAME = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


def adapter(value: float) -> Adapter:
    """A LoRA that is in memory only."""
    tensors = {f"{NAME}.lora_down.weight": torch.full((4, 768), value), f"{NAME}.lora_up.weight": torch.ones(1280, 4)}
    return map_source(TensorDict(tensors, "memory"))


def digest(*entries: StackEntry) -> str:
    return Stack(entries).digest


def test_stacks_of_different_adapters_in_memory_differ() -> None:
    one, other = adapter(1.0), adapter(2.0)

    assert digest(StackEntry(one)) != digest(StackEntry(other))
    assert digest(StackEntry(one)) == digest(StackEntry(one))


def test_order_and_strengths_tell_stacks_apart() -> None:
    one, other = adapter(1.0), adapter(2.0)
    stacks = [
        (),
        (StackEntry(one), StackEntry(other)),
        (StackEntry(other), StackEntry(one)),
        (StackEntry(one, Strengths(model=0.5)),),
        (StackEntry(one, Strengths(clip=0.5)),),
        (StackEntry(one, Strengths(components={TEXT_ENCODER: 0.5})),),
        (StackEntry(one, Strengths(blocks={"mid": 0.5})),),
    ]

    assert len({digest(*entries) for entries in stacks}) == len(stacks)


def test_a_strength_is_the_components_times_the_blocks() -> None:
    strengths = Strengths(model=0.8, clip=0.5, components={"text_encoder_2": 0.0}, blocks={"mid": 0.25})

    assert strengths.of(DENOISER, "mid") == 0.2
    assert strengths.of(DENOISER, "out01") == 0.8
    assert strengths.of(TEXT_ENCODER, "base") == 0.5
    assert strengths.of("text_encoder_2", "base") == 0.0
