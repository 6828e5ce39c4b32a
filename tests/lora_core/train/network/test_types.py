"""Every type that is trained: what PEFT does to a weight, our adapter does, and every file that is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import networks
from lora_core import load_adapter
from lora_core.convert import convert_lora
from lora_core.train.diffusers_denoiser import DiffusersDenoiser

# Settings of one run each. In all of them a rank, an alpha and a module is other than the default.
TYPES: dict[str, dict[str, Any]] = {
    "lora": {"alpha": 2.0},
    "lora, named layers": {"targets": ("to_q", "to_out.0", "conv1"), "alpha": 1.0},
    "rslora": {"rslora": True, "alpha": 2.0},
    "locon": {"conv_rank": 2, "conv_alpha": 1.0, "targets": "attention+ff+proj"},
    "all": {"targets": "all", "conv_rank": 2},
    "blocks": {"block_ranks": {"mid": 8, "in01": 2, "out00": 0}, "block_alphas": {"mid": 1.0}},
    "dora": {"type": "dora", "conv_rank": 2, "alpha": 2.0},
    "loha": {"type": "loha", "conv_rank": 4, "alpha": 1.0},
    "lokr": {"type": "lokr", "rank": 2, "conv_rank": 1, "alpha": 1.0, "targets": "attention+ff+proj"},
    "lokr, whole factors": {"type": "lokr", "rank": 64, "alpha": 16.0},
    "lokr, small factor 4": {"type": "lokr", "rank": 2, "alpha": 1.0, "decompose_factor": 4},
    "oft": {"type": "oft", "rank": 8, "targets": "attention+ff+proj"},
    "pissa": {"start": "pissa", "alpha": 2.0},
    "olora": {"start": "olora", "alpha": 8.0},
    "orthogonal": {"start": "orthogonal"},
    "gaussian": {"start": "gaussian"},
}
# Both sides compute in float32 with sums in another order. LoHa's and DoRA's have products and norms of sums besides.
ROUNDING = 5e-6


@pytest.fixture(scope="module")
def model() -> DiffusersDenoiser:
    return networks.denoiser()


@pytest.mark.parametrize("name", TYPES)
def test_adapter_and_files_do_what_peft_does(name: str, model: DiffusersDenoiser, tmp_path: Path) -> None:
    base, before = networks.weights(model), networks.state(model)
    network = networks.attach(model, text_encoder=True, **TYPES[name])
    networks.move(network)
    expected = {key: one.double() for key, one in network.deltas().items()}
    adapter = network.adapter()
    assert networks.worst(networks.changes(adapter, base), expected) < ROUNDING
    convert_lora(adapter, tmp_path / "kohya.safetensors", "kohya")
    written = load_adapter(tmp_path / "kohya.safetensors", strict=True)
    assert networks.worst(networks.changes(written, base), expected) < ROUNDING
    assert {key.component for key in expected} == {"denoiser", "text_encoder"}
    network.detach()
    after = networks.state(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], one) for key, one in before.items())


@pytest.mark.parametrize("name", TYPES)
def test_nothing_changes_before_training(name: str, model: DiffusersDenoiser) -> None:
    expected = networks.predict(model)
    network = networks.attach(model, text_encoder=True, **TYPES[name])
    # pissa and olora take factors out of the base and add them again, dora divides norms by themselves.
    assert torch.allclose(networks.predict(model), expected, atol=2e-5)
    network.detach()


@pytest.mark.parametrize("name", TYPES)
def test_the_adapter_does_what_the_trained_model_does(name: str, model: DiffusersDenoiser) -> None:
    base = networks.weights(model)
    network = networks.attach(model, **TYPES[name])
    networks.move(network)
    trained = networks.predict(model)
    adapter = network.adapter()
    network.detach()
    changed = networks.changes(adapter, base)
    owner = {model.path_of("denoiser", path): one for path, one in model.parts["denoiser"].named_modules()}
    for key, change in changed.items():
        owner[key.path].weight.data = (base[key].double() + change).float()
    try:
        merged = networks.predict(model)
    finally:
        for key in changed:
            owner[key.path].weight.data = base[key]
    assert not torch.allclose(trained, networks.predict(model), atol=1e-3)  # there is something to be seen
    assert torch.allclose(merged, trained, atol=1e-4)  # 84 layers, one after the other, in float32


@pytest.mark.parametrize("name", ["lora", "rslora", "locon", "dora", "loha", "lokr", "oft", "pissa"])
@pytest.mark.parametrize("strength", [0.0, 0.5, -1.0, 2.0])
def test_scaled_is_the_strength_of_a_patch(name: str, strength: float, model: DiffusersDenoiser) -> None:
    base = networks.weights(model)
    network = networks.attach(model, **TYPES[name])
    networks.move(network)
    with network.scaled(strength):
        seen = networks.predict(model)
    changed = networks.changes(network.adapter(), base, strength)
    full = networks.predict(model)
    network.detach()
    owner = {model.path_of("denoiser", path): one for path, one in model.parts["denoiser"].named_modules()}
    for key, change in changed.items():
        owner[key.path].weight.data = (base[key].double() + change).float()
    merged = networks.predict(model)
    for key in changed:
        owner[key.path].weight.data = base[key]
    assert torch.allclose(seen, merged, atol=2e-4)
    assert not torch.equal(full, seen)


@pytest.mark.parametrize("name", ["lora", "dora", "loha", "lokr", "oft", "olora"])
def test_disabled_is_the_base_to_the_last_bit(name: str, model: DiffusersDenoiser) -> None:
    expected = networks.predict(model)
    network = networks.attach(model, text_encoder=True, **TYPES[name])
    networks.move(network)
    before = networks.predict(model)
    with network.disabled():
        assert torch.equal(networks.predict(model), expected)
    assert torch.equal(networks.predict(model), before)
    assert all(parameter.requires_grad for parameter in network.parameters())
    network.detach()
