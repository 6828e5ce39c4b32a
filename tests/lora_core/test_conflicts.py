"""Inner products of LoRAs against differences of full size, and what is said of a stack."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations_with_replacement
from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_core import Adapter, StackEntry, Strengths, map_source
from lora_core import conflicts as module
from lora_core.architectures import ARCHITECTURES
from lora_core.conflicts import ALIKE, NEARLY, OPPOSED, Conflict, find_conflicts, inner_products, kept_products
from lora_core.io import TensorDict
from lora_core.types import Target

Tensors = dict[str, torch.Tensor]

QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"  # 64 x 64, block in01
MIDDLE = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v"  # 128 x 128
CONV = "lora_unet_down_blocks_0_downsamplers_0_conv"  # 64 x 64 x 3 x 3
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc2"  # 128 x 512
SHAPES = {QUERY: (64, 64), MIDDLE: (128, 128), CONV: (64, 64, 3, 3), TEXT: (128, 512)}
DEMO = ARCHITECTURES.get("loom_demo")


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lora(*names: str, seed: int, rank: int = 2, alpha: float | None = None) -> Tensors:
    generator, tensors = random(seed), Tensors()
    for name in names:
        out, *inner = SHAPES[name]
        tensors[f"{name}.lora_down.weight"] = torch.randn(rank, *inner, generator=generator)
        tensors[f"{name}.lora_up.weight"] = torch.randn(out, rank, *(1 for _ in inner[1:]), generator=generator)
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def loha(name: str, seed: int, rank: int = 2) -> Tensors:
    generator = random(seed)
    out, inner = SHAPES[name]
    return {
        f"{name}.hada_{side}_{half}": torch.randn(*shape, generator=generator)
        for side in ("w1", "w2")
        for half, shape in (("a", (out, rank)), ("b", (rank, inner)))
    }


def full(name: str, seed: int) -> Tensors:
    return {f"{name}.diff": torch.randn(*SHAPES[name], generator=random(seed))}


def adapter(tensors: Tensors, architecture: str = "loom_demo") -> Adapter:
    return map_source(TensorDict(tensors, "x.safetensors"), architecture)


def entry(tensors: Tensors | Adapter, model: float = 1.0, clip: float = 1.0, **blocks: float) -> StackEntry:
    made = tensors if isinstance(tensors, Adapter) else adapter(tensors)
    return StackEntry(made, Strengths(model, clip, blocks=blocks))


def dense(one: Adapter) -> dict[Target, torch.Tensor]:
    """Whole parameter -> the change, by applying the file to zeros."""
    family = ARCHITECTURES.get(one.architecture)
    found: dict[Target, torch.Tensor] = {}
    for target, delta in one.deltas:
        shape = family.shape(target.whole)
        assert shape is not None
        weight = found.setdefault(target.whole, torch.zeros(shape, dtype=torch.float64))
        part = weight if target.slice is None else weight.narrow(*target.slice)
        part.copy_(getattr(delta, "direction", delta).apply(part.clone(), 1.0))
    return found


def expected(a: Adapter, b: Adapter) -> dict[tuple[str, str], float]:
    family, one, other = ARCHITECTURES.get(a.architecture), dense(a), dense(b)
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for target in one.keys() & other.keys():
        group = target.module.component, family.block(target.module)
        sums[group] += float((one[target] * other[target]).sum())
    return sums


def check(*files: Adapter) -> None:
    pairs = list(combinations_with_replacement(range(len(files)), 2))
    found = inner_products(files, pairs)
    assert list(found) == pairs
    for i, j in pairs:
        wanted = expected(files[i], files[j])
        norms = [sum(expected(files[k], files[k]).values()) for k in (i, j)]
        assert found[i, j].sums.keys() <= wanted.keys()
        for group, value in wanted.items():
            assert found[i, j].sums.get(group, 0.0) == pytest.approx(
                value, rel=1e-4, abs=1e-6 * sqrt(norms[0] * norms[1])
            )


# Inner products


def test_a_product_that_was_worked_out_by_hand() -> None:
    def one_number(row: int, column: int, up: float, down: float, alpha: float) -> Adapter:
        ups, downs = torch.zeros(64, 1), torch.zeros(1, 64)
        ups[row], downs[0, column] = up, down
        parts = {"lora_up.weight": ups, "lora_down.weight": downs, "alpha": torch.tensor(alpha)}
        return adapter({f"{QUERY}.{role}": tensor for role, tensor in parts.items()})

    a, b = one_number(3, 5, 2.0, 4.0, 0.5), one_number(3, 5, -1.0, 3.0, 2.0)  # 4 and -6 at one place
    elsewhere = one_number(3, 6, 1.0, 1.0, 1.0)
    found = inner_products([a, b, elsewhere], [(0, 0), (0, 1), (1, 1), (0, 2)])
    (group,) = found[0, 1].sums
    assert group == ("denoiser", "in01")
    assert [found[pair].sums[group] for pair in found] == [16.0, -24.0, 36.0, 0.0]
    assert found[0, 1].shared == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 9), st.sampled_from([None, 0.5, 8.0]), st.integers(0, 1000))
def test_products_of_factors_are_those_of_the_differences(
    rank: int, other: int, alpha: float | None, seed: int
) -> None:
    names = QUERY, CONV, TEXT
    a = adapter(lora(*names, seed=seed, rank=rank, alpha=alpha))
    check(a, adapter(lora(*names, MIDDLE, seed=seed + 1, rank=other)))


def test_types_without_factors_are_made_module_by_module() -> None:
    check(
        adapter(lora(QUERY, MIDDLE, seed=1)),
        adapter(loha(QUERY, 2) | full(MIDDLE, 3)),
        adapter(full(QUERY, 4) | lora(MIDDLE, seed=5)),
    )


def test_a_dora_counts_with_its_direction_and_what_depends_on_the_weight_is_left_out() -> None:
    plain = lora(QUERY, seed=1)
    magnitude = {f"{QUERY}.dora_scale": torch.rand(64, 1, generator=random(2))}
    dora, lone = adapter(plain | magnitude), adapter(plain)
    assert {delta.type for _, delta in dora.deltas} == {"dora"}
    check(dora, lone)
    ia3 = adapter({f"{QUERY}.weight": torch.ones(64, 1), f"{QUERY}.on_input": torch.tensor(False)})
    assert {delta.type for _, delta in ia3.deltas} == {"ia3"}
    assert inner_products([lone, ia3], [(0, 1)])[0, 1].sums == {}


def test_rows_of_a_fused_matrix_meet_where_they_overlap() -> None:
    generator = random(1)

    def factors(name: str, rows: int) -> Tensors:
        return {
            f"{name}.lora_A.weight": torch.randn(2, 3072, generator=generator) / 55,
            f"{name}.lora_B.weight": torch.randn(rows, 2, generator=generator),
        }

    block = "transformer.transformer_blocks.0.attn"
    apart = adapter(factors(f"{block}.to_q", 3072) | factors(f"{block}.to_v", 3072), "flux")
    key = adapter(factors(f"{block}.to_k", 3072), "flux")
    fused = adapter(factors("diffusion_model.double_blocks.0.img_attn.qkv", 9216), "flux")
    check(apart, fused, key)
    found = inner_products([apart, fused, key], [(0, 1), (0, 2), (1, 2)])
    assert [found[pair].shared for pair in found] == [2, 0, 1]


def test_adapters_of_different_families_have_none() -> None:
    name = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    sd15 = {f"{name}.lora_down.weight": torch.ones(1, 320), f"{name}.lora_up.weight": torch.ones(320, 1)}
    found = inner_products([adapter(sd15, "sd15"), adapter(lora(QUERY, seed=1))], [(0, 1)])
    assert found[0, 1].sums == {}
    assert found[0, 1].shared == 0


# What is said


def mixed(a: Tensors, b: Tensors, cosine: float) -> Tensors:
    """``a`` turned towards ``b``: two ranks more, so that the cosine with ``a`` is about this much (b is unrelated)."""
    share = {"up": cosine, "other": sqrt(1 - cosine**2)}
    return {
        key: torch.cat([tensor * share["up"], b[key] * share["other"]], 1)
        if key.endswith("lora_up.weight")
        else torch.cat([tensor, b[key]], 0)
        for key, tensor in a.items()
    }


NAMES = (QUERY, MIDDLE, CONV)


def pair(cosine: float, model: float = 1.0, other: float = 1.0) -> list[Conflict]:
    a, b = lora(*NAMES, seed=1, rank=4, alpha=4.0), lora(*NAMES, seed=2, rank=4, alpha=4.0)
    near = mixed({k: v for k, v in a.items() if "alpha" not in k}, b, cosine)
    return find_conflicts([entry(a, model), entry(near, other)])


def test_unrelated_loras_are_not_worth_a_line() -> None:
    entries = [entry(lora(*NAMES, TEXT, seed=seed, rank=rank)) for seed, rank in enumerate((1, 4, 16, 64))]
    assert find_conflicts(entries) == []
    assert find_conflicts([]) == find_conflicts(entries[:1]) == []


# sqrt(2 + 2 * cosine), for two of one length
@pytest.mark.parametrize(
    ("cosine", "words", "times"),
    [
        (0.9, "nearly the same change twice", "1.9"),
        (0.6, "nearly the same change twice", "1.8"),
        (0.3, "do much the same", "1.6"),
    ],
)
def test_changes_that_are_alike(cosine: float, words: str, times: str) -> None:
    (found,) = pair(cosine)
    assert (found.a, found.b, found.shared) == (0, 1, 3)
    assert found.cosine == pytest.approx(cosine, abs=0.05)
    assert found.text.startswith(f"{words} (")
    assert f"together {times} times as strong as the stronger one alone" in found.text


def test_a_negative_strength_turns_a_change_round() -> None:
    (found,) = pair(0.6, other=-1.0)
    assert found.cosine == pytest.approx(-0.6, abs=0.05)
    assert found.text.startswith("pull against each other (")
    lost = round(100 * (1 - sqrt(1 + found.cosine)))
    assert f"together {lost} % weaker than two that have nothing to do with each other" in found.text


def test_the_limits_and_what_is_too_weak_to_matter() -> None:
    assert (OPPOSED, ALIKE, NEARLY) == (-0.2, 0.25, 0.5)
    assert pair(0.15) == pair(0.1, other=-1.0) == []
    assert len(pair(0.3, other=-1.0)) == 1
    assert pair(0.9, other=0.05) == pair(0.9, model=0.05) == pair(0.9, other=0.0) == []


def test_the_same_file_twice_adds_up() -> None:
    one = adapter(lora(*NAMES, seed=1))
    (found,) = find_conflicts([entry(one, 0.8), entry(lora(*NAMES, seed=3)), entry(one, -0.5)])
    assert (found.a, found.b, found.cosine) == (0, 2, -1.0)
    assert found.text == "the same file twice: its strengths add up to 0.3"
    again = adapter({key: tensor * (2 if "up" in key else 1) for key, tensor in lora(*NAMES, seed=1).items()})
    (found,) = find_conflicts([entry(one, 0.8), entry(again, 0.5)])
    assert found.text == "the same change in two files twice: its strengths add up to 1.8"


def test_one_file_on_blocks_apart_is_no_conflict() -> None:
    one = adapter(lora(*NAMES, seed=1))
    assert find_conflicts([entry(one, mid=0.0), entry(one, mid=1.0, base=1.0, in01=0.0, in02=0.0)]) == []


def test_text_encoders_are_looked_at_apart() -> None:
    text = lora(TEXT, seed=5)
    a, b = lora(*NAMES, seed=1) | text, lora(*NAMES, seed=2) | text
    (found,) = find_conflicts([entry(a), entry(b, 1.0, 0.5)])
    assert found.text.startswith("text encoders: the same change in two files twice: its strengths add up to 1.5")
    assert find_conflicts([entry(a), entry(b, clip=0.0)]) == []


def test_different_families_in_one_stack() -> None:
    name = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    tensors = {f"{name}.lora_down.weight": torch.ones(1, 320), f"{name}.lora_up.weight": torch.ones(320, 1)}
    (found,) = find_conflicts([entry(lora(QUERY, seed=1)), entry(adapter(tensors, "sd15"))])
    assert (found.cosine, found.shared) == (0.0, 0)
    assert found.text == "made for different models: Loom Demo and SD 1.5"


def test_numbers_that_are_none_are_nobodys_conflict() -> None:
    broken = lora(*NAMES, seed=1)
    broken[f"{QUERY}.lora_up.weight"][0, 0] = float("nan")
    assert find_conflicts([entry(broken), entry(broken)]) == []


def test_products_are_kept_and_another_strength_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [adapter(lora(*NAMES, seed=seed)) for seed in (1, 2)]
    first = kept_products(files)
    asked: list[object] = []
    plain = module.inner_products

    def watched(adapters: list[Adapter], pairs: list[tuple[int, int]]) -> object:
        asked.extend(pairs)
        return plain(adapters, pairs)

    monkeypatch.setattr(module, "inner_products", watched)
    assert kept_products(files) == first
    kept_products(files[::-1])
    find_conflicts([StackEntry(one, Strengths(0.3, -2.0)) for one in files])
    assert asked == []
    kept_products([*files, adapter(lora(QUERY, seed=9))])
    assert asked == [(0, 2), (1, 2), (2, 2)]


def test_few_pairs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    for seed in range(4):
        kept_products([adapter(lora(QUERY, seed=seed))])
    assert len(module._kept) == 3


def test_of_a_long_stack_all_pairs_are_kept() -> None:
    assert sum(range(1, 26)) <= module.KEPT  # as many rows as the route compares, each with itself too
