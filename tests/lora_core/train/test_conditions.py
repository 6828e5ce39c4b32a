"""Conditions of several captions as one, and each again."""

from __future__ import annotations

import pytest
import torch

from lora_core.errors import ConfigError
from lora_core.train.conditions import joined, rows_of


def test_rows_of_one_shape_are_stacked():
    rows = [{"text": torch.full((2, 3), float(number)), "pooled": torch.tensor([number])} for number in range(3)]

    made = joined(rows)

    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == {"text": (3, 2, 3), "pooled": (3, 1)}
    for row, again in zip(rows, rows_of(made), strict=True):
        assert all(torch.equal(row[name], again[name]) for name in row)


def test_rows_of_different_lengths_come_back_as_they_were():
    rows = [{"text": torch.ones(1, length, 4), "mask": torch.ones(length, dtype=torch.long)} for length in (5, 2, 7)]

    made = joined(rows)

    assert made["text"].shape == (3, 1, 7, 4)
    assert made["text"][1].sum() == 8  # what was filled up is 0
    assert [tuple(row["text"].shape) for row in rows_of(made)] == [(1, 5, 4), (1, 2, 4), (1, 7, 4)]
    assert [row["mask"].tolist() for row in rows_of(made)] == [[1] * 5, [1] * 2, [1] * 7]


def test_rows_that_have_other_names_are_refused():
    with pytest.raises(ConfigError, match="different conditions for captions of one batch"):
        joined([{"text": torch.ones(1)}, {"text": torch.ones(1), "pooled": torch.ones(1)}])
