"""What a saved file does is compared with what PEFT says was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_core.errors import LoomError
from lora_core.train.output import NotAsTrainedError, check_saved, save_lora
from lora_core.types import ModuleKey

from .conftest import TOKEN, Train, Trained


@pytest.fixture
def trained(train: Train) -> Trained:
    return train()


@pytest.fixture
def file(trained: Trained, tmp_path: Path) -> Path:
    return save_lora(trained.adapter, TOKEN, tmp_path / "cat.safetensors").path


def spoil(file: Path, ending: str, factor: float | None) -> str:
    """Multiply the first tensor with this ending, or take its module away; returns the module's name."""
    tensors = load_file(file)
    key = next(key for key in tensors if key.endswith(ending))
    name = key.removesuffix(ending)
    if factor is None:
        tensors = {key: one for key, one in tensors.items() if not key.startswith(f"{name}.")}
    else:
        tensors[key] = tensors[key] * factor
    save_file(tensors, file)
    return name


def check(file: Path, trained: Trained, **more: object) -> object:
    return check_saved(file, trained.deltas, architecture="loom_demo", **more)


def test_a_good_file_passes(file: Path, trained: Trained):
    check(file, trained, embeddings=TOKEN)


@pytest.mark.parametrize("ending", [".lora_up.weight", ".lora_down.weight", ".alpha"])
@pytest.mark.parametrize("factor", [1.01, -1.0, 0.0])
def test_a_factor_that_is_off_by_a_per_cent_is_found(file: Path, trained: Trained, ending: str, factor: float):
    spoil(file, ending, factor)

    with pytest.raises(NotAsTrainedError, match="read back, its change differs"):
        check(file, trained)


def test_a_change_smaller_than_rounding_passes(file: Path, trained: Trained):
    spoil(file, ".alpha", 1 + 2**-14)  # fp16 rounds by up to 2^-11 of each number

    check(file, trained)


def test_a_missing_module_is_found(file: Path, trained: Trained):
    spoil(file, ".alpha", None)

    with pytest.raises(NotAsTrainedError, match="it was trained, and the file does not change it"):
        check(file, trained)


def test_a_module_that_was_not_trained_is_found(file: Path, trained: Trained):
    deltas = {key: trained.deltas[key] for key in list(trained.deltas)[1:]}

    with pytest.raises(NotAsTrainedError, match="the file changes it, and it was not trained"):
        check_saved(file, deltas, architecture="loom_demo")


def test_a_tensor_that_nothing_takes_is_found(file: Path, trained: Trained):
    save_file({**load_file(file), "lora_unet_nowhere.lora_up.weight": torch.zeros(4, 4)}, file)

    with pytest.raises(LoomError, match="nowhere"):
        check(file, trained)


def test_modules_that_changed_places_are_found(file: Path, trained: Trained):
    """Of equal shapes, so that every loader takes them."""
    tensors = load_file(file)
    one, other = "attn1_to_k.lora_up.weight", "attn1_to_v.lora_up.weight"
    first = next(key for key in tensors if key.endswith(one))
    second = first.replace(one, other)
    tensors[first], tensors[second] = tensors[second], tensors[first]
    save_file(tensors, file)

    with pytest.raises(NotAsTrainedError):
        check(file, trained)


def test_another_embedding_is_found(file: Path, trained: Trained):
    with pytest.raises(NotAsTrainedError, match=r"embedding <s1> of clip_l: read back, it is another"):
        check(file, trained, embeddings={"<s1>": {"clip_l": torch.zeros(1, 128)}})
    with pytest.raises(NotAsTrainedError, match=r"embedding <s2> of clip_l: it was trained, and is not in the file"):
        check(file, trained, embeddings={"<s2>": {"clip_l": torch.zeros(1, 128)}})


@pytest.mark.parametrize("type", ["dora", "oft"])
def test_a_change_that_depends_on_the_weight_is_compared_too(train: Train, tmp_path: Path, type: str):
    trained = train(type=type, size=0.05)
    deltas = trained.deltas
    path = save_lora(trained.adapter, {}, tmp_path / "cat.safetensors").path
    check(path, trained, weight_of=deltas.weight)

    # For OFT a number of the rotation, for DoRA a factor.
    spoil(path, ".lora_up.weight" if type == "dora" else ".oft_R.weight", 1.05)

    with pytest.raises(NotAsTrainedError):
        check(path, trained, weight_of=deltas.weight)


def test_the_user_is_told_where_rounding_takes_much(train: Train, tmp_path: Path):
    """bf16 has 8 bits, and the change is a small difference of two large products."""
    trained = train(start="pissa", size=0.002)

    saved = save_lora(trained.adapter, {}, tmp_path / "cat.safetensors", dtype="bf16", deltas=trained.deltas)

    assert saved.check is not None
    assert saved.check.worst > 0.02
    assert any("rounding to bf16 takes" in line for line in saved.warnings)


def test_each_change_is_computed_once(file: Path, trained: Trained):
    """They are as large as the model together, and PEFT makes each when it is asked for."""
    asked: list[ModuleKey] = []
    deltas = trained.deltas

    class Counting(Mapping[ModuleKey, torch.Tensor]):
        def __getitem__(self, key: ModuleKey) -> torch.Tensor:
            asked.append(key)
            return deltas[key]

        def __iter__(self) -> Iterator[ModuleKey]:
            return iter(deltas)

        def __len__(self) -> int:
            return len(deltas)

    check_saved(file, Counting(), architecture="loom_demo")

    assert sorted(asked) == sorted(deltas)
