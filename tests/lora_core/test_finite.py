"""NaN and infinity are found before they blacken a picture."""

from __future__ import annotations

import pytest
import torch

from lora_core import Adapter, map_source
from lora_core.errors import NonFiniteError
from lora_core.finite import Numbers, changes_nothing, check_finite, examine, non_finite, numbers_of
from lora_core.io import TensorDict
from lora_core.io.dtypes import NAMES

NAME = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"


def adapter_of(down: torch.Tensor, alpha: float = 2.0) -> Adapter:
    tensors = {
        f"{NAME}.lora_down.weight": down,
        f"{NAME}.lora_up.weight": torch.ones(320, 2),
        f"{NAME}.alpha": torch.tensor(alpha),
    }
    return map_source(TensorDict(tensors, "ink.safetensors"))


def test_a_sound_file_passes() -> None:
    check_finite(adapter_of(torch.ones(2, 320)))


def test_the_error_names_file_key_and_count() -> None:
    down = torch.ones(2, 320)
    down[0, 3], down[1, 5], down[1, 6] = torch.nan, torch.inf, -torch.inf
    with pytest.raises(
        NonFiniteError, match=rf"^ink\.safetensors: {NAME}\.lora_down\.weight: 3 of 640 values"
    ) as caught:
        check_finite(adapter_of(down))
    assert (caught.value.key, caught.value.count, caught.value.total) == (f"{NAME}.lora_down.weight", 3, 640)


def test_an_embedding_counts_too() -> None:
    tensors = {f"{NAME}.lora_down.weight": torch.ones(2, 320), f"{NAME}.lora_up.weight": torch.ones(320, 2)}
    adapter = map_source(TensorDict(tensors | {"bundle_emb.ink.clip_l": torch.full((1, 768), torch.nan)}))
    with pytest.raises(NonFiniteError, match=r"bundle_emb\.ink\.clip_l: 768 of 768 values"):
        check_finite(adapter)


def test_an_alpha_is_a_number_too() -> None:
    with pytest.raises(NonFiniteError, match="alpha of"):
        check_finite(adapter_of(torch.ones(2, 320), alpha=torch.nan))


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2],
    ids=str,
)
def test_every_dtype(dtype: torch.dtype) -> None:
    values = torch.ones(7).to(dtype)
    assert non_finite(values) == 0
    values[2] = torch.tensor(torch.nan).to(dtype)
    assert non_finite(values) == 1


def test_large_numbers_are_finite() -> None:
    """Their sum overflows, they do not."""
    assert non_finite(torch.full((100,), torch.finfo(torch.float32).max)) == 0
    assert non_finite(torch.full((100_000,), torch.finfo(torch.float16).max, dtype=torch.float16)) == 0
    assert non_finite(torch.tensor([torch.inf, -torch.inf, 1.0])) == 2


def test_integers_are_finite() -> None:
    assert non_finite(torch.arange(5)) == 0


def test_every_tensor_is_examined_also_those_that_are_not_used() -> None:
    broken = torch.tensor([1.0, torch.nan, -torch.inf, -70000.0, torch.nan])
    source = TensorDict({"a": broken, "b": torch.zeros(3), "empty": torch.zeros(0), "count": torch.ones(2).long()})
    found = {ref.name: numbers for ref, numbers in examine(source)}
    assert found == {"a": Numbers(2, 1, 5, 70000.0), "b": Numbers(0, 0, 3, 0.0)}
    assert not found["a"].finite


@pytest.mark.parametrize("dtype", [dtype for dtype in NAMES if dtype.is_floating_point])
def test_each_dtype_has_numbers(dtype: torch.dtype) -> None:
    """Scales of quantised files (E8M0) know no arithmetic of their own; 1 and 2 are in each dtype."""
    values = torch.tensor([1.0, 2.0]).to(dtype)
    assert numbers_of(values) == Numbers(0, 0, 2, 2.0)
    assert non_finite(values) == 0


def test_a_module_whose_up_is_zero_changes_nothing() -> None:
    down, up = torch.ones(2, 320), torch.zeros(320, 2)
    tensors = {f"{NAME}.lora_down.weight": down, f"{NAME}.lora_up.weight": up}
    ((_, untrained),) = map_source(TensorDict(tensors)).deltas
    ((_, trained),) = adapter_of(down).deltas
    assert changes_nothing(untrained)
    assert not changes_nothing(trained)
