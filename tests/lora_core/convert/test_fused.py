"""q, k and v: one matrix in a model's own names, three in diffusers'. Both ways are exact.

SD 3's numbers: its matrices are small enough to be made, and diffusers swaps the rows of its last norms besides.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from lora_core.architectures import ARCHITECTURES
from lora_core.convert import Conversion, convert
from lora_core.errors import ConversionError
from lora_core.io import TensorDict
from lora_core.mapping import map_source
from lora_core.stack import Adapter
from lora_core.types import Target

FAMILY = ARCHITECTURES.get("sd3")
WIDTH = 1536
QKV = "lora_unet_joint_blocks_0_x_block_attn_qkv"
SPLIT = "transformer.transformer_blocks.0.attn"
# Which is scale and which is shift: diffusers has the halves the other way round.
NORM = "lora_unet_final_layer_adaLN_modulation_1"
Tensors = dict[str, torch.Tensor]


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 10


def fused(rows: int = 3 * WIDTH, rank: int = 4, name: str = QKV) -> Tensors:
    return {
        f"{name}.lora_down.weight": random(0, rank, WIDTH),
        f"{name}.lora_up.weight": random(1, rows, rank),
        f"{name}.alpha": torch.tensor(rank / 2),
    }


def split(names: str = "qkv", ranks: Mapping[str, int] | None = None) -> Tensors:
    tensors: Tensors = {}
    for seed, letter in enumerate(names):
        rank = (ranks or {}).get(letter, 4)
        tensors[f"{SPLIT}.to_{letter}.lora_A.weight"] = random(seed, rank, WIDTH)
        tensors[f"{SPLIT}.to_{letter}.lora_B.weight"] = random(10 + seed, WIDTH, rank)
    return tensors


def adapter_of(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> Adapter:
    return map_source(TensorDict(tensors, "test.safetensors", metadata), architecture="sd3")


def read_back(made: Conversion) -> Adapter:
    (content,) = made.contents
    adapter = adapter_of({key: stored.load() for key, stored in content.tensors.items()}, content.metadata)
    assert adapter.report.complete
    assert adapter.report.format == made.scheme.name
    return adapter


def differences(adapter: Adapter) -> dict[Target, torch.Tensor]:
    """All of what is added to each parameter."""
    added: dict[Target, torch.Tensor] = {}
    for target, delta in adapter.deltas:
        shape = FAMILY.shape(target.whole)
        assert shape is not None
        whole = added.setdefault(target.whole, torch.zeros(shape))
        rows = whole if target.slice is None else whole.narrow(*target.slice)
        rows += delta.apply(torch.zeros(rows.shape), 1.0)
    return added


def assert_same(before: Adapter, after: Adapter, tolerance: float = 0.0) -> None:
    one, other = differences(before), differences(after)
    assert one.keys() == other.keys()
    for target, difference in one.items():
        torch.testing.assert_close(other[target], difference, rtol=tolerance, atol=tolerance)


def test_a_fused_matrix_becomes_q_k_and_v_with_the_same_down_factor() -> None:
    before = adapter_of(fused())
    made = convert(before, "diffusers")

    assert [(change.how, change.name) for change in made.changes] == [
        ("cut", f"{SPLIT}.to_{letter}") for letter in "qkv"
    ]
    assert_same(before, read_back(made), 1e-6)  # products of other lengths add in another order


def test_q_k_and_v_become_one_matrix_whose_rank_is_their_sum() -> None:
    before = adapter_of(split(ranks={"q": 4, "k": 8, "v": 2}))
    made = convert(before, "kohya")
    after = read_back(made)

    assert [(change.how, change.name) for change in made.changes] == [("joined", QKV)]
    assert [delta.rank for _, delta in after.deltas] == [14]
    assert_same(before, after, 1e-6)


def test_there_and_back_is_the_same() -> None:
    before = adapter_of(fused())

    assert_same(before, read_back(convert(read_back(convert(before, "diffusers")), "comfy")), 1e-6)


def test_what_the_file_says_nothing_of_is_zeros() -> None:
    before = adapter_of(split("qv"))
    after = read_back(convert(before, "kohya"))

    ((target, difference),) = differences(after).items()
    assert target.module.path == "joint_blocks.0.x_block.attn.qkv"
    assert not difference[WIDTH : 2 * WIDTH].any()
    assert_same_rows(before, difference)


def assert_same_rows(before: Adapter, difference: torch.Tensor) -> None:
    ((_, wanted),) = differences(before).items()
    torch.testing.assert_close(difference, wanted, rtol=1e-6, atol=1e-6)  # other lengths of sums


def test_different_scales_of_joined_matrices_are_kept() -> None:
    tensors = split() | {f"{SPLIT}.to_q.alpha": torch.tensor(1.0), f"{SPLIT}.to_k.alpha": torch.tensor(6.0)}
    before = adapter_of(tensors)

    assert_same(before, read_back(convert(before, "kohya")), 1e-6)


@pytest.mark.parametrize("format", ["kohya", "diffusers", "comfy"])
def test_the_halves_of_the_last_norm_keep_their_meaning(format: str) -> None:
    before = adapter_of(fused(2 * WIDTH, name=NORM))
    assert_same(before, read_back(convert(before, format)), 1e-6)

    swapped = adapter_of(
        {
            "transformer.norm_out.linear.lora_A.weight": random(0, 4, WIDTH),
            "transformer.norm_out.linear.lora_B.weight": random(1, 2 * WIDTH, 4),
        }
    )
    assert_same(swapped, read_back(convert(swapped, format)), 1e-6)
    assert not torch.allclose(*(next(iter(differences(one).values())) for one in (before, swapped)))


def test_dora_of_q_k_and_v_is_cut_and_joined_with_its_magnitudes() -> None:
    whole = fused() | {f"{QKV}.dora_scale": random(7, 3 * WIDTH, 1).abs() + 1}
    before = adapter_of(whole)
    between = read_back(convert(before, "diffusers"))
    after = read_back(convert(between, "kohya"))

    weight = random(8, 3 * WIDTH, WIDTH)
    ((_, first),), ((_, last),) = before.deltas, after.deltas
    # the norm of a row is a sum of 1536 squares, in float32
    torch.testing.assert_close(last.apply(weight, 0.7), first.apply(weight, 0.7), rtol=1e-5, atol=1e-5)
    assert {delta.type for _, delta in between.deltas} == {"dora"}


def half_dora() -> Tensors:
    """Of v nothing is there: a joined matrix would need the norms of its rows, which only the model has."""
    return split("qk") | {f"{SPLIT}.to_{letter}.lora_magnitude_vector": random(7, WIDTH).abs() + 1 for letter in "qk"}


def test_what_cannot_be_joined_keeps_names_apart_that_readers_of_kohya_know() -> None:
    before = adapter_of(half_dora())
    made = convert(before, "kohya")
    after = read_back(made)

    flat = SPLIT.replace("transformer.", "lora_transformer_", 1).replace(".", "_")
    assert [change.name for change in made.changes] == [f"{flat}_to_{letter}" for letter in "qk"]
    assert [target for target, _ in after.deltas] == [target for target, _ in before.deltas]
    weight = random(8, WIDTH, WIDTH)
    for (_, one), (_, other) in zip(before.deltas, after.deltas, strict=True):
        assert torch.equal(one.apply(weight, 1.0), other.apply(weight, 1.0))


def test_dora_of_some_rows_cannot_be_joined() -> None:
    with pytest.raises(ConversionError, match=r"dora of .*to_q cannot be written .* magnitude for each of its rows"):
        convert(adapter_of(half_dora()), "comfy")


def test_differences_and_loha_are_cut_by_rows() -> None:
    loha = {
        f"{QKV}.hada_w1_a": random(0, 3 * WIDTH, 2),
        f"{QKV}.hada_w1_b": random(1, 2, WIDTH),
        f"{QKV}.hada_w2_a": random(2, 3 * WIDTH, 2),
        f"{QKV}.hada_w2_b": random(3, 2, WIDTH),
    }
    before = adapter_of(loha)
    (content,) = convert(before, "peft").contents

    tensors = {key: stored.load() for key, stored in content.tensors.items()}
    assert len(tensors) == 12
    after = adapter_of(tensors)
    assert_same(before, after, 1e-6)


def test_lokr_of_a_fused_matrix_is_an_error_that_says_why() -> None:
    lokr = {f"{QKV}.lokr_w1": random(0, 4, 4), f"{QKV}.lokr_w2": random(1, 3 * WIDTH // 4, WIDTH // 4)}

    with pytest.raises(ConversionError, match=r"lokr of lora_unet_joint_blocks_0_x_block_attn_qkv cannot be written"):
        convert(adapter_of(lokr), "diffusers")
