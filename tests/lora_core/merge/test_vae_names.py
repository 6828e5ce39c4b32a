"""VAE names of any number of levels, against diffusers' own single-file reader."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lora_core.merge.vae_names import PREFIX, checkpoint_name, checkpoint_shape, levels_of


@pytest.mark.parametrize("widths", [(32,), (32, 64), (32, 32, 64), (32, 32, 64, 64), (32,) * 5], ids=len)
@pytest.mark.parametrize("blocks", [1, 2])
def test_diffusers_reads_the_names_back(widths: tuple[int, ...], blocks: int) -> None:
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    count = len(widths)
    vae: Any = AutoencoderKL(
        block_out_channels=widths,
        layers_per_block=blocks,
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
        latent_channels=4,
    )
    tensors: dict[str, torch.Tensor] = vae.state_dict()
    levels = levels_of(tensors)
    assert levels == count
    renamed = {
        PREFIX + checkpoint_name(name, levels): tensor.reshape(checkpoint_shape(name, tuple(tensor.shape)))
        for name, tensor in tensors.items()
    }
    assert len(renamed) == len(tensors)
    back = convert_ldm_vae_checkpoint(dict(renamed), vae.config)
    assert set(back) == set(tensors)
    assert all(torch.equal(back[name].reshape(tensor.shape), tensor) for name, tensor in tensors.items())


def test_attention_has_the_shape_of_a_convolution() -> None:
    assert checkpoint_shape("decoder.mid_block.attentions.0.to_q.weight", (64, 64)) == (64, 64, 1, 1)
    assert checkpoint_shape("decoder.mid_block.attentions.0.to_q.bias", (64,)) == (64,)
    assert checkpoint_shape("quant_conv.weight", (8, 8, 1, 1)) == (8, 8, 1, 1)


def test_names_before_version_0_15() -> None:
    old = "encoder.mid_block.attentions.0."
    assert checkpoint_name(old + "proj_attn.weight", 4) == "encoder.mid.attn_1.proj_out.weight"
    assert checkpoint_name(old + "query.bias", 4) == "encoder.mid.attn_1.q.bias"


def test_attention_inside_a_level() -> None:
    assert checkpoint_name("decoder.up_blocks.0.attentions.1.to_out.0.bias", 3) == "decoder.up.2.attn.1.proj_out.bias"
