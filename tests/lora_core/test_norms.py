"""The norm of a LoRA's change in each block, against differences of full size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import lora_files
from lora_core import load_adapter, norms
from lora_core.architectures import ARCHITECTURES
from lora_core.errors import NonFiniteError
from lora_core.norms import block_norms, file_norms


def test_norms_are_those_of_the_differences(tmp_path: Path) -> None:
    parts = lora_files.factors("loom_demo", seed=1, modules=r"attn1\.to_q|conv1|mlp")
    path = lora_files.save(tmp_path / "x.safetensors", lora_files.kohya(parts, 2.0))
    family, squares = ARCHITECTURES.get("loom_demo"), dict[str, float]()
    adapter = load_adapter(path)
    for target, delta in adapter.deltas:
        shape = family.shape(target)
        assert shape is not None
        name = target.module.component
        name = family.block(target.module) if name == "denoiser" else name
        change = delta.apply(torch.zeros(shape, dtype=torch.float64), 1.0)
        squares[name] = squares.get(name, 0.0) + float(change.square().sum())
    found = block_norms(adapter)
    assert list(found) == [name for name in (*family.blocks, "text_encoder") if name in squares]
    assert found == pytest.approx({name: square**0.5 for name, square in squares.items()}, rel=1e-6)


def test_a_files_norms_are_kept_as_long_as_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = lora_files.factors("loom_demo", seed=1, modules=r"attn1\.to_q")
    path = lora_files.save(tmp_path / "x.safetensors", lora_files.kohya(parts))
    first = file_norms(path)
    calls: list[object] = []
    monkeypatch.setattr(norms, "block_norms", lambda adapter: calls.append(adapter) or {"mid": 1.0})
    assert file_norms(path) == first
    assert calls == []
    os.utime(path, ns=(1, 1))
    assert file_norms(path) == {"mid": 1.0}


def test_numbers_that_are_none_are_named(tmp_path: Path) -> None:
    tensors = lora_files.kohya(lora_files.factors("loom_demo", seed=1, modules=r"attn1\.to_q"))
    key = next(key for key in tensors if "up" in key)
    tensors[key][0] = float("nan")
    with pytest.raises(NonFiniteError, match="NaN"):
        file_norms(lora_files.save(tmp_path / "x.safetensors", tensors))
