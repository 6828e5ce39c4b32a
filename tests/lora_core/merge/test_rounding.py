"""The rounding error that a merge reports is the one that is in the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import small_models
from lora_core.io.dtypes import FP8
from lora_core.merge import merge_to_checkpoint, open_checkpoint
from lora_core.merge.rounding import MANY, Meter, Rounding, rounding_json, worst
from lora_core.patching import apply_patch, bind
from small_models import adapter, lora_tensors, stack_of

# Half a step of the last bit against numbers of any size: 2^-12 of them for ten bits behind the point, and so on,
# and a little more for the smallest ones, which have fewer bits.
LARGEST = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float8_e4m3fn: 2.0**-4}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_the_error_is_that_of_the_written_tensor(tmp_path: Path, dtype: torch.dtype) -> None:
    """For low-rank patches, a DoRA among them, and convolutions.

    Sums are added in another order: 1e-4. Of large tensors, whose rows are few here, every fourth was measured: 0.1.
    """
    base, out = tmp_path / "base.safetensors", tmp_path / "out.safetensors"
    small_models.write_checkpoint(base, dtype)
    tensors = lora_tensors() | {
        f"{key.removesuffix('.lora_up.weight')}.dora_scale": torch.rand(64, 1) + 0.5
        for key in lora_tensors(only="ff_net_2")
        if key.endswith(".lora_up.weight") and lora_tensors(only="ff_net_2")[key].shape[0] == 64
    }
    stack = stack_of(adapter(tensors))
    report = merge_to_checkpoint(base, stack, out)
    before, after, checkpoint = load_file(base), load_file(out), open_checkpoint(base)

    patches = bind(stack, checkpoint.shape_of).patches
    assert set(report.rounding) == {checkpoint.places[target].key for target in patches}
    for target, patch in patches.items():
        key = checkpoint.places[target].key
        exact = apply_patch(before[key], patch, dtype=torch.float32)
        error, found = after[key].float() - exact, report.rounding[key]
        near = 0.1 if exact.numel() >= MANY else 1e-4
        assert found.weight == pytest.approx(float(error.norm() / exact.norm()), rel=near)
        assert found.change == pytest.approx(float(error.norm() / (exact - before[key].float()).norm()), rel=near)
        assert dtype in FP8 or found.weight < LARGEST[dtype]


def test_the_meter_by_hand() -> None:
    meter = Meter()
    before, exact = torch.zeros(2, 2), torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    meter.add(before, exact, exact + 0.5)

    # |error| = 0.5 * sqrt(4) = 1 against |W'| = 5.
    assert meter.read() == Rounding(0.2, 0.2)


def test_nothing_is_reported_of_what_is_not_rounded(tmp_path: Path) -> None:
    base, out = tmp_path / "base.safetensors", tmp_path / "out.safetensors"
    small_models.write_checkpoint(base, torch.float32)
    report = merge_to_checkpoint(base, stack_of(adapter(lora_tensors(only="attn1"))), out)

    assert report.rounding == {}
    assert report.as_json()["rounding"] == {}


def test_a_change_of_nothing_has_no_error_of_its_own(tmp_path: Path) -> None:
    """A LoRA of zeros on an fp32 checkpoint, written as fp16: the weight is rounded, and no change is lost in that."""
    base, out = tmp_path / "base.safetensors", tmp_path / "out.safetensors"
    small_models.write_checkpoint(base, torch.float32)
    zero = {key: tensor * key.endswith("alpha") for key, tensor in lora_tensors(only="attn1").items()}
    report = merge_to_checkpoint(base, stack_of(adapter(zero)), out, dtype="fp16")

    assert {one.change for one in report.rounding.values()} == {None}
    assert all(one.weight > 0 for one in report.rounding.values())
    json.dumps(report.as_json(), allow_nan=False)


def test_the_worst_layers_come_first() -> None:
    rounding = {"a": Rounding(0.1, 0.2), "b": Rounding(0.01, 0.9), "c": Rounding(0.3, 0.4)}
    assert worst(rounding, 2) == ["b", "c"]
    said = rounding_json(rounding)
    assert said["of_weight"] == {"mean": 0.137, "max": 0.3}
    assert said["of_change"] == {"mean": 0.5, "max": 0.9}
    assert said["worst"] == ["b", "c", "a"]
    assert said["layers"] == {
        "a": {"weight": 0.1, "change": 0.2},
        "b": {"weight": 0.01, "change": 0.9},
        "c": {"weight": 0.3, "change": 0.4},
    }


def test_a_number_type_that_is_too_coarse_shows(tmp_path: Path) -> None:
    """A weak LoRA in plain fp8: what rounding takes is more than what the LoRA adds."""
    base, out = tmp_path / "base.safetensors", tmp_path / "out.safetensors"
    save_file(small_models.checkpoint_tensors(torch.float16), base)
    weak = stack_of(adapter(lora_tensors(only="attn1")), strengths=small_models.Strengths(0.01, 0.0))
    coarse = merge_to_checkpoint(base, weak, out, dtype="fp8").rounding
    fine = merge_to_checkpoint(base, weak, out, overwrite=True).rounding

    assert all((coarse[key].change or 0) > 1 > (fine[key].change or 0) for key in coarse)
