"""LoRA on any torch module, with the classifier of the example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from examples import any_module
from lora_core.errors import ConfigError, ShapeMismatchError
from lora_core.train.config import NetworkSection
from lora_core.train.network import attach_module, load_module, save_module


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 16), nn.Linear(16, 4))


def inputs() -> torch.Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_lora_of_rank_1_teaches_the_classifier_a_style(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = any_module.classifier()
    pictures, labels, held_out = any_module.pictures("flat")
    any_module.fit(model, pictures[~held_out], labels[~held_out], epochs=2, rate=3e-4)
    frozen = [one.detach().clone() for one in model.parameters()]
    pictures, labels, held_out = any_module.pictures("high_contrast")
    before = any_module.accuracy(model, pictures[held_out], labels[held_out])
    adapted = any_module.add_lora(model)
    assert (adapted.trained, adapted.total) == (15_370, 20_998_154)
    any_module.fit(model, pictures[~held_out], labels[~held_out], epochs=4, rate=3e-3)
    after = any_module.accuracy(model, pictures[held_out], labels[held_out])
    assert after > before + 0.03
    adapted.detach()
    assert any_module.accuracy(model, pictures[held_out], labels[held_out]) == before
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), frozen, strict=True))


TYPES: list[dict[str, Any]] = [
    {"rank": 2, "targets": "all", "conv_rank": 1},
    {"rank": 2, "targets": ("3",), "type": "dora", "alpha": 1.0},
    {"rank": 2, "targets": "all", "type": "loha"},
    {"rank": 2, "targets": "all", "type": "lokr", "alpha": 4.0},
    {"rank": 4, "targets": "all", "type": "oft"},
]


@pytest.mark.parametrize("settings", TYPES)
def test_what_is_saved_loads_here_and_in_peft(settings: dict[str, Any], tmp_path: Path) -> None:
    from peft import PeftModel

    model = small()
    adapted = attach_module(model, NetworkSection(**settings))
    with torch.no_grad():
        for number, parameter in enumerate(adapted.parameters()):
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.1
    adapted.train(False)
    expected = model(inputs())
    save_module(adapted, tmp_path / "adapter")
    again = small()
    load_module(attach_module(again, NetworkSection(**settings), seed=9), tmp_path / "adapter")
    assert torch.equal(again(inputs()), expected)
    theirs = PeftModel.from_pretrained(small(), str(tmp_path / "adapter"))
    assert torch.equal(theirs(inputs()), expected)
    assert not torch.allclose(small()(inputs()), expected, atol=1e-3)


def test_other_settings_than_the_files_are_refused(tmp_path: Path) -> None:
    adapted = attach_module(small(), NetworkSection(rank=2, targets="all"))
    save_module(adapted, tmp_path)
    with pytest.raises(ShapeMismatchError, match="Attach with the rank"):
        load_module(attach_module(small(), NetworkSection(rank=1, targets="all")), tmp_path)
    with pytest.raises(ConfigError, match=r"base_model.model.4.lora_A.weight is in the file alone"):
        load_module(attach_module(small(), NetworkSection(rank=2, targets=("3",))), tmp_path)


def test_a_name_means_a_path_or_its_ending_and_no_other() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    adapted = attach_module(model, NetworkSection(rank=1, targets=("1.0",)))
    assert list(adapted.layers) == ["1.0"]
    adapted.detach()
    adapted = attach_module(model, NetworkSection(rank=1, targets="all", exclude=(r"^0$",)))
    assert list(adapted.layers) == ["1.0", "1.1"]


def test_layers_that_are_never_called_are_left_out() -> None:
    model = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8))
    assert list(attach_module(model, NetworkSection(rank=1, targets="all")).layers) == ["1"]


def test_what_wants_gradients_does_so_again() -> None:
    model = small()
    attach_module(model, NetworkSection(rank=1, targets="all")).detach()
    assert all(one.requires_grad for one in model.parameters())
    with pytest.raises(ConfigError):
        attach_module(model, NetworkSection(rank=1, targets=("nothing",)))
    assert all(one.requires_grad for one in model.parameters())
