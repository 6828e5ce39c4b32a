"""The words for groups of modules mean the same modules under the names of diffusers and of checkpoints."""

from __future__ import annotations

import pytest

from lora_core.architectures import ARCHITECTURES, Architecture
from lora_core.train.network.targets import is_attention, is_conv, is_ff, is_proj
from lora_core.types import DENOISER

UNETS = ("sd15", "sd21", "sdxl", "loom_demo")
MATRICES = (2, 4)


def modules(row: Architecture, component: str) -> list[tuple[str, str]]:
    """(canonical, diffusers) of each layer with a matrix."""
    own = row.component(component)
    assert own is not None
    return [
        (path, one.diffusers)
        for path, one in own.modules.items()
        if len(one.shapes.get("weight", ())) in MATRICES and "embed" not in path.rpartition(".")[2]
    ]


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize("test", [is_attention, is_ff, is_proj, is_conv])
def test_both_names_of_a_module_are_of_one_group(name: str, test: object) -> None:
    assert callable(test)
    found = modules(ARCHITECTURES.get(name), DENOISER)
    assert [path for path, other in found if test(path) != test(other)] == []
    assert any(test(path) for path, _ in found)


def test_groups_of_sd15_are_its_layers() -> None:
    paths = [path for path, _ in modules(ARCHITECTURES.get("sd15"), DENOISER)]
    counts = [sum(map(test, paths)) for test in (is_attention, is_ff, is_proj, is_conv)]
    # 16 transformers with two attentions of 4 layers, one feed-forward of 2, proj_in and proj_out; 22 residual blocks
    # with two convolutions, 14 of them with a third, 3 downsamplers and 3 upsamplers.
    assert counts == [128, 32, 32, 22 * 2 + 14 + 3 + 3]


@pytest.mark.parametrize("row", list(ARCHITECTURES), ids=lambda row: row.name)
def test_every_family_has_attention_and_feed_forward(row: Architecture) -> None:
    found = modules(row, DENOISER)
    attention = [path for path, _ in found if is_attention(path)]
    ff = [path for path, _ in found if is_ff(path)]
    assert attention
    assert ff or row.name.startswith(("cascade", "sd15_motion")) or not found
    shared = [path for path in set(attention) & set(ff) if not path.endswith(("linear1", "linear2", "to_qkv_mlp_proj"))]
    assert shared == []


@pytest.mark.parametrize(
    ("path", "groups"),
    [
        ("double_blocks.0.img_attn.qkv", "a"),
        ("transformer_blocks.3.attn.to_out.0", "a"),
        ("transformer_blocks.3.attn.add_q_proj", "a"),
        ("single_blocks.7.linear1", "af"),
        ("single_transformer_blocks.7.proj_mlp", "af"),
        ("single_transformer_blocks.7.proj_out", "af"),
        ("proj_out", ""),
        ("blocks.2.self_attn.q", "a"),
        ("blocks.2.ffn.0", "f"),
        ("layers.2.feed_forward.w1", "f"),
        ("encoder.block.0.layer.0.SelfAttention.q", "a"),
        ("encoder.block.0.layer.1.DenseReluDense.wi_0", "f"),
        ("text_model.encoder.layers.0.mlp.fc1", "f"),
        ("encoder.layers.0.self_attn.out_proj", "a"),
        ("t_embedder.mlp.0", ""),
        ("double_blocks.0.img_mod.lin", ""),
        ("down_blocks.1.attentions.0.proj_in", "p"),
        ("down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj", "f"),
        ("time_embedding.linear_1", ""),
        ("conv_in", ""),
        ("input_blocks.0.0", ""),
    ],
)
def test_names(path: str, groups: str) -> None:
    tests = {"a": is_attention, "f": is_ff, "p": is_proj, "c": is_conv}
    assert "".join(letter for letter, test in tests.items() if test(path)) == groups
