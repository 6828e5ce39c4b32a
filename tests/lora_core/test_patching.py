"""The application of patches: by hand, in every dtype, to the last bit, and without touching its input."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from deltas import Random, delta_of, patch_of
from lora_core.adapters import Factors
from lora_core.adapters.base import Delta
from lora_core.adapters.lora import LoraDelta
from lora_core.errors import ConfigError, ShapeMismatchError
from lora_core.io import TensorDict, TensorRef
from lora_core.patching import CPU_BLOCK, DeltaStep, LowRankStep, apply_patch, apply_steps, fuse, rounded
from lora_core.types import Slice

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


def one_by_one(up: float, down: float) -> Delta:
    """A LoRA of rank 1 for a weight of shape (1, 1)."""
    return delta_of("lora", {"up": torch.tensor([[up]]), "down": torch.tensor([[down]])}, (1, 1))


class Doubling(Delta):
    """W' = (1 + strength) W: depends on the weight, so its place in the stack matters."""

    type, tensors = "doubling", ()

    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        return weight * (1 + strength)


def test_by_hand() -> None:
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    ink = delta_of(
        "lora", {"up": torch.tensor([[1.0], [0.0]]), "down": torch.tensor([[10.0, 20.0]])}, (2, 2), alpha=0.5
    )
    full = delta_of("full", {"diff": torch.tensor([[0.0, 0.0], [100.0, 0.0]])}, (2, 2))
    # alpha / rank = 0.5, strength 2: the first row gains 1 * [10, 20]. Then -1 of the full difference.
    assert apply_patch(weight, patch_of(weight, (ink, 2.0), (full, -1.0))).tolist() == [[11.0, 22.0], [-97.0, 4.0]]


def test_neighbouring_low_rank_deltas_become_one_product() -> None:
    random = Random.seeded()
    weight = random.tensor(6, 5)
    first, second = random.lora((6, 5), 2, alpha=1.0), random.lora((6, 5), 3)
    [step] = fuse(patch_of(weight, (first, 0.5), (second, -2.0)))
    assert isinstance(step, LowRankStep)
    assert (tuple(step.up.shape), tuple(step.down.shape)) == ((6, 5), (5, 5))
    assert torch.equal(step.up[:, :2], first.factors().up * (0.5 * 0.5))  # strength times alpha / rank
    assert torch.equal(step.up[:, 2:], second.factors().up * -2.0)
    assert torch.equal(step.down, torch.cat([first.factors().down, second.factors().down]))


def test_what_is_not_a_product_keeps_its_place() -> None:
    random = Random.seeded()
    weight = random.tensor(4, 4)
    before, between, after = random.lora((4, 4), 1), random.dora((4, 4), 1), random.lora((4, 4), 2)
    steps = fuse(patch_of(weight, (before, 1.0), (between, 0.5), (after, 1.0), (after, 1.0)))
    assert [type(step) for step in steps] == [LowRankStep, DeltaStep, LowRankStep]
    assert [step.up.shape[1] for step in steps if isinstance(step, LowRankStep)] == [1, 4]


def test_order_matters_around_a_delta_that_depends_on_the_weight() -> None:
    weight = torch.tensor([[3.0]])
    plus_ten, doubling = one_by_one(1.0, 10.0), Doubling()
    assert apply_patch(weight, patch_of(weight, (plus_ten, 1.0), (doubling, 1.0))).item() == 26.0
    assert apply_patch(weight, patch_of(weight, (doubling, 1.0), (plus_ten, 1.0))).item() == 16.0
    assert apply_patch(weight, patch_of(weight, (plus_ten, 1.0), (doubling, 1.0), (plus_ten, -1.0))).item() == 16.0


def test_dora_in_the_middle_of_a_stack() -> None:
    """Each delta sees the weight that those before it left."""
    random = Random.seeded()
    weight = random.tensor(8, 6)
    first, dora, last = random.lora((8, 6), 2), random.dora((8, 6), 2), random.lora((8, 6), 2)
    expected = last.apply(dora.apply(first.apply(weight, 0.7), 0.5), -1.0)
    stacked = apply_patch(weight, patch_of(weight, (first, 0.7), (dora, 0.5), (last, -1.0)))
    torch.testing.assert_close(stacked, expected)
    swapped = apply_patch(weight, patch_of(weight, (dora, 0.5), (first, 0.7), (last, -1.0)))
    assert (stacked - swapped).abs().max() > 0.01


def test_opposite_strengths_cancel() -> None:
    """In one product the terms cancel before they are added to the weight: a rounding of the product is left."""
    random = Random.seeded()
    weight, delta = random.tensor(32, 16), random.lora((32, 16), 4)
    patched = apply_patch(weight, patch_of(weight, (delta, 0.9), (delta, -0.9)))
    torch.testing.assert_close(patched, weight, rtol=0, atol=1e-6)


def test_slices_of_a_fused_matrix() -> None:
    """q, k and v of two LoRAs: three products of two, and nothing outside the slices changes."""
    random = Random.seeded()
    weight = random.tensor(12, 5)
    q, k = Slice(0, 0, 4), Slice(0, 4, 4)
    ink, oil = random.lora((4, 5), 1), random.lora((4, 5), 2)
    patch = patch_of(weight, (ink, 1.0, q), (oil, 1.0, k), (oil, 0.5, q), (ink, 2.0, k))
    steps = fuse(patch)
    assert [(step.slice, step.up.shape[1]) for step in steps if isinstance(step, LowRankStep)] == [(q, 3), (k, 3)]
    expected = weight.clone()
    expected[:4] = oil.apply(ink.apply(weight[:4], 1.0), 0.5)
    expected[4:8] = ink.apply(oil.apply(weight[4:8], 1.0), 2.0)
    patched = apply_patch(weight, patch)
    torch.testing.assert_close(patched, expected)
    assert torch.equal(patched[8:], weight[8:])


@pytest.mark.parametrize("part", [Slice(0, 2, 3), Slice(1, 1, 2)], ids=["rows", "columns"])
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3, 3)], ids=["linear", "conv"])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_slices_along_rows_and_columns(kind: str, shape: tuple[int, ...], part: Slice) -> None:
    random = Random.seeded()
    weight = random.tensor(*shape)
    inside = tuple(weight.narrow(*part).shape)
    delta = random.lora(inside, 2) if kind == "lora" else random.dora(inside, 2)
    expected = weight.clone()
    expected.narrow(*part).copy_(delta.apply(weight.narrow(*part), 0.5))
    torch.testing.assert_close(apply_patch(weight, patch_of(weight, (delta, 0.5, part))), expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kind", ["low rank", "mixed"])
def test_every_dtype_is_rounded_once(dtype: torch.dtype, kind: str) -> None:
    """Against float64: half a unit in the last place of the dtype, and what float32 products of rank 8 lose."""
    random = Random.seeded()
    weight = random.tensor(24, 20).to(dtype)
    parts = [(random.lora((24, 20), 4, 2.0), 0.8), (random.lora((24, 20), 4, dtype=torch.float16), -0.5)]
    if kind == "mixed":
        parts.insert(1, (random.full((24, 20)), 1.5))
    expected = weight.double()
    for delta, strength in parts:
        expected = delta.apply(expected, strength)
    patched = apply_patch(weight, patch_of(weight, *parts))
    assert patched.dtype == dtype
    spacing = torch.finfo(dtype).eps * expected.abs()
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps  # the spacing of subnormal numbers
    allowed = 0.5 * spacing + 0.5 * smallest + 8 * torch.finfo(torch.float32).eps
    assert ((patched.double() - expected).abs() <= allowed).all()


@pytest.mark.parametrize("stored", FLOATS, ids=str)
def test_factors_in_every_dtype(stored: torch.dtype) -> None:
    """A file's numbers are taken as they are: scaled and multiplied in float32, not in their own dtype."""
    random = Random.seeded()
    up, down = random.tensor(8, 2).to(stored), random.tensor(2, 6).to(stored)
    delta = delta_of("lora", {"up": up, "down": down}, (8, 6), alpha=0.3)
    weight = random.tensor(8, 6)
    expected = weight.double() + 0.7 * (0.3 / 2) * up.double() @ down.double()
    torch.testing.assert_close(apply_patch(weight, patch_of(weight, (delta, 0.7))), expected.float())


def test_fp8_saturates() -> None:
    """A bare cast makes NaN (float8_e4m3fn in older torch) or infinity (float8_e5m2) of what is too large."""
    for dtype, largest in ((torch.float8_e4m3fn, 448.0), (torch.float8_e5m2, 57344.0)):
        weight = torch.tensor([[largest]]).to(dtype)
        assert apply_patch(weight, patch_of(weight, (one_by_one(1.0, 1e6), 1.0))).float().item() == largest
        assert apply_patch(weight, patch_of(weight, (one_by_one(1.0, 1e6), -1.0))).float().item() == -largest
        assert rounded(torch.tensor([float("nan")]), dtype).float().isnan().all()


def test_result_in_another_dtype() -> None:
    random = Random.seeded()
    weight = random.tensor(8, 8, dtype=torch.float16)
    patch = patch_of(weight, (random.lora((8, 8), 2), 1.0))
    wide = apply_patch(weight, patch, dtype=torch.float32)
    assert wide.dtype == torch.float32
    assert torch.equal(apply_patch(weight, patch), wide.half())


# Both shapes need several blocks of rows; the second's rows do not fill the last one.
@pytest.mark.parametrize("shape", [(2048, 1024), (1111, 360, 3, 3)], ids=["linear", "conv"])
def test_live_and_merged_agree_to_the_last_bit(shape: tuple[int, ...]) -> None:
    """A live patch starts from float32, a merge from the file's fp16; both are the same numbers."""
    random = Random.seeded()
    stored = random.tensor(*shape, dtype=torch.float16)
    patch = patch_of(stored, (random.lora(shape, 8, 4.0), 0.8), (random.lora(shape, 16, 4.0), 0.3))
    assert stored.numel() > CPU_BLOCK
    merged = apply_patch(stored, patch, dtype=torch.float32)
    assert torch.equal(merged, apply_patch(stored.float(), patch))
    assert torch.equal(merged, apply_steps(stored.float(), fuse(patch)))
    assert torch.equal(apply_patch(stored, patch), merged.half())
    behind_an_odd_offset = torch.empty(stored.numel() + 3, dtype=torch.float16)[3:].view(shape).copy_(stored)
    assert torch.equal(apply_patch(behind_an_odd_offset, patch, dtype=torch.float32), merged)


# 1280 x 11520 and 9 x 77 are shapes whose product rounds differently on one core and on several, if several share it.
@pytest.mark.parametrize("shape", [(1280, 1280, 3, 3), (9, 77)], ids=["conv", "small"])
def test_the_number_of_cores_changes_no_bit(shape: tuple[int, ...]) -> None:
    """A merge computes each tensor on one core, a live patch on all."""
    random = Random.seeded()
    weight = random.tensor(*shape)
    patch = patch_of(weight, (random.lora(shape, 16), 0.8), (random.dora(shape, 4), 0.5), (random.lora(shape, 4), 1.0))
    cores = torch.get_num_threads()
    try:
        results: list[torch.Tensor] = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(apply_patch(weight, patch))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(cores)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_under_inference_mode() -> None:
    """The host's mode, in which results are tensors that only this mode may write to."""
    random = Random.seeded()
    weight = random.tensor(1500, 700)
    patch = patch_of(weight, (random.lora((1500, 700), 2), 1.0))
    with torch.inference_mode():
        patched = apply_patch(weight.clone(), patch)
        mixed = apply_patch(weight, patch_of(weight, (random.dora((1500, 700), 2), 1.0)))
    assert patched.is_inference()
    assert mixed.is_inference()
    assert torch.equal(patched, apply_patch(weight, patch))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_input_is_never_written_to(dtype: torch.dtype) -> None:
    random = Random.seeded()
    shape = (8, 4, 3, 3)
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = random.tensor(*shape).to(dtype).contiguous(memory_format=layout)
        before = weight.clone()
        for parts in ([(random.lora(shape, 2), 1.0)], [(random.dora(shape, 2), 1.0)], []):
            patched = apply_patch(weight, patch_of(weight, *parts))
            assert patched.data_ptr() != weight.data_ptr()
            assert patched.is_contiguous()
            assert torch.equal(weight.double(), before.double())


def test_memory_layout_changes_nothing() -> None:
    random = Random.seeded()
    weight, delta = random.tensor(8, 4, 3, 3), random.lora((8, 4, 3, 3), 2)
    patch = patch_of(weight, (delta, 1.0))
    assert torch.equal(
        apply_patch(weight.contiguous(memory_format=torch.channels_last), patch), apply_patch(weight, patch)
    )


def test_parameters_that_are_trained_are_patched_outside_autograd() -> None:
    random = Random.seeded()
    weight = torch.nn.Parameter(random.tensor(8, 4))
    assert not apply_patch(weight, patch_of(weight, (random.lora((8, 4), 2), 1.0))).requires_grad


def test_more_ranks_than_the_weight_has() -> None:
    random = Random.seeded()
    weight = random.tensor(4, 6)
    parts = [(random.lora((4, 6), 5), 0.5) for _ in range(3)]
    expected = weight
    for delta, strength in parts:
        expected = delta.apply(expected, strength)
    torch.testing.assert_close(apply_patch(weight, patch_of(weight, *parts)), expected)


def test_biases_take_differences() -> None:
    bias = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    delta = delta_of("full", {"diff": torch.tensor([0.5, -1.0])}, (2,))
    assert apply_patch(bias, patch_of(bias, (delta, 2.0))).tolist() == [2.0, 0.0]


def test_each_factor_is_read_once() -> None:
    reads: Counter[str] = Counter()

    class Counting(TensorDict):
        def view(self, ref: TensorRef) -> torch.Tensor:
            reads[ref.name] += 1
            return super().view(ref)

    random = Random.seeded()
    source = Counting({"up": random.tensor(2000, 4), "down": random.tensor(4, 1500)})
    weight = random.tensor(2000, 1500)
    apply_patch(weight, patch_of(weight, (LoraDelta(source["up"], source["down"], None, 1.0), 1.0)))
    assert reads == {"up": 1, "down": 1}


def test_a_fused_patch_needs_a_block_of_float32_not_a_whole_weight() -> None:
    class Largest(TorchDispatchMode):
        floats = 0

        def __torch_dispatch__(self, function, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
            result = function(*arguments, **(options or {}))
            if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
                self.floats = max(self.floats, result.untyped_storage().nbytes() // 4)
            return result

    random = Random.seeded()
    weight = random.tensor(2500, 2000, dtype=torch.float16)
    patch = patch_of(weight, (random.lora((2500, 2000), 4), 1.0))
    cores = torch.get_num_threads()
    torch.set_num_threads(1)  # in this thread, where it is seen
    try:
        with Largest() as seen:
            apply_patch(weight, patch)
    finally:
        torch.set_num_threads(cores)
    assert 0 < seen.floats <= CPU_BLOCK < weight.numel()


def test_a_patch_for_another_weight_is_refused() -> None:
    random = Random.seeded()
    patch = patch_of(random.tensor(4, 4), (random.lora((4, 4), 2), 1.0))
    with pytest.raises(
        ShapeMismatchError, match=r"test.safetensors: denoiser.somewhere.weight: expected \(4, 4\)"
    ) as caught:
        apply_patch(torch.zeros(4, 9), patch)
    assert (caught.value.expected, caught.value.got) == ((4, 4), (4, 9))


def test_integer_weights_are_refused() -> None:
    random = Random.seeded()
    weight = torch.zeros(4, 4, dtype=torch.int8)
    with pytest.raises(ConfigError, match=r"denoiser\.somewhere\.weight: a weight of torch\.int8 cannot be patched"):
        apply_patch(weight, patch_of(weight, (random.lora((4, 4), 2), 1.0)))


def test_factors_may_live_anywhere() -> None:
    """The host moves factors itself: what counts is what ``factors`` returns."""

    class Held(Doubling):
        def factors(self, device: torch.device | str = "cpu") -> Factors:
            return Factors(torch.ones(2, 1), torch.ones(1, 3), 0.5)

    weight = torch.zeros(2, 3)
    assert torch.equal(apply_patch(weight, patch_of(weight, (Held(), 4.0))), torch.full((2, 3), 2.0))


@pytest.mark.gpu
def test_gpu_agrees_with_cpu() -> None:
    """float32 on both; a GPU adds in another order, so the last bits may differ."""
    random = Random.seeded()
    weight = random.tensor(512, 256)
    patch = patch_of(weight, (random.lora((512, 256), 8), 1.0), (random.dora((512, 256), 4), 0.5))
    on_gpu = apply_patch(weight.cuda(), patch)
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.cpu(), apply_patch(weight, patch), rtol=1e-5, atol=1e-5)
    assert apply_patch(weight, patch, device="cuda").device.type == "cuda"
