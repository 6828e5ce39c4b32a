"""State dictionaries as tensors and JSON, and back."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lora_core.train.optimizers import flatten_state, restore_state


def there_and_back(state: dict) -> dict:
    tensors, told = flatten_state(state)
    return restore_state(tensors, json.loads(json.dumps(told, allow_nan=False)))


def test_plain_values_keep_their_types():
    state = {
        "state": {0: {"step": 3, "RMS": 0.1 + 0.2}, 1: {}},
        "param_groups": [{"betas": (None, 0.999), "fused": True, "params": [0, 1], "name": "denoiser", "lr": 1e-300}],
        "1": "a name that looks like a number",
        "empty": [(), [], {}],
    }

    back = there_and_back(state)

    assert back == state
    assert isinstance(back["param_groups"][0]["betas"], tuple)
    assert isinstance(back["state"][0]["step"], int)
    assert list(back["state"]) == [0, 1]


@pytest.mark.parametrize("number", [math.inf, -math.inf, 5e-324, 0.1, -0.0])
def test_numbers_keep_their_bits(number):
    assert repr(there_and_back({"x": number})["x"]) == repr(number)


def test_nan_stays_nan():
    assert math.isnan(there_and_back({"x": math.nan})["x"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.int64, torch.bool])
def test_tensors_keep_shape_and_dtype(dtype):
    value = torch.arange(4).view(2, 2).to(dtype)

    back = there_and_back({"state": {7: {"exp_avg": value, "list": [value.sum()]}}})

    assert back["state"][7]["exp_avg"].dtype == dtype
    assert torch.equal(back["state"][7]["exp_avg"], value)
    assert back["state"][7]["list"][0].shape == ()


def test_tensors_are_as_files_want_them():
    value = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)

    tensors, _ = flatten_state({"x": value})

    assert tensors["state.x"].is_contiguous()
    assert torch.equal(tensors["state.x"], value)


def test_tensors_are_named_by_where_they_are():
    tensors, _ = flatten_state({"state": {0: {"exp_avg": torch.ones(2)}}}, prefix="optimizer")

    assert list(tensors) == ["optimizer.state.0.exp_avg"]


def test_names_of_different_places_never_meet():
    state = {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1), 1: torch.full((1,), 2.0), "1": torch.full((1,), 3.0)}

    back = there_and_back(state)

    assert [back["a"]["b"].item(), back["a.b"].item(), back[1].item(), back["1"].item()] == [0, 1, 2, 3]


def test_a_tensor_in_two_places_is_stored_once():
    shared = torch.ones(3)

    tensors, told = flatten_state({"one": shared, "two": shared})

    assert len(tensors) == 1
    assert torch.equal(restore_state(tensors, told)["two"], shared)


def test_what_cannot_be_saved_is_named():
    with pytest.raises(TypeError, match=r"state.groups.0: a dtype cannot be saved"):
        flatten_state({"groups": [torch.float32]})
    with pytest.raises(TypeError, match="keys are names or numbers, got a tuple"):
        flatten_state({("a",): 1})


def test_what_it_did_not_write_is_refused():
    with pytest.raises(ValueError, match="not written by flatten_state"):
        restore_state({}, {"lr": 1})
    with pytest.raises(ValueError, match="a state is a dictionary"):
        restore_state({}, [1])
    with pytest.raises(KeyError, match=r"state\.x"):
        restore_state({}, flatten_state({"x": torch.ones(1)})[1])
