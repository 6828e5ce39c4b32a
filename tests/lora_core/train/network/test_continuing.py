"""Training that goes on from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import networks
from lora_core.convert import convert_lora
from lora_core.errors import ConfigError
from lora_core.train.diffusers_denoiser import DiffusersDenoiser

DEMO_LORA = networks.BASE.parent / "loras" / "demo_style_high_contrast.safetensors"
# Factors times the quotient of two scales, in float32.
ROUNDING = 2e-6


@pytest.fixture
def model() -> DiffusersDenoiser:
    return networks.denoiser()


@pytest.fixture
def file(model: DiffusersDenoiser, tmp_path: Path) -> Path:
    """A trained LoRA of rank 2 and alpha 1, with convolutions."""
    network = networks.attach(model, text_encoder=True, rank=2, alpha=1.0, conv_rank=2)
    networks.move(network)
    convert_lora(network.adapter(), tmp_path / "first.safetensors")
    self_deltas = {key: one.double() for key, one in network.deltas().items()}
    torch.save(self_deltas, tmp_path / "deltas.pt")
    network.detach()
    return tmp_path / "first.safetensors"


@pytest.mark.parametrize("settings", [{"rank": 2, "conv_rank": 2}, {"rank": 8, "alpha": 4.0, "conv_rank": 4}])
def test_the_start_is_the_file(model: DiffusersDenoiser, file: Path, settings: dict[str, float]) -> None:
    network = networks.attach(model, text_encoder=True, continue_from=str(file), **settings)
    expected = torch.load(file.with_name("deltas.pt"), weights_only=False)
    assert networks.worst({key: one.double() for key, one in network.deltas().items()}, expected) < ROUNDING
    ups = [one for part in network.parts.values() for layer in part.layers.values() for one in layer.ups()]
    assert all(one[:, :2].any() and not one[:, 2:].any() for one in ups)


def test_the_demos_own_lora_goes_on(model: DiffusersDenoiser) -> None:
    network = networks.attach(
        model, rank=16, conv_rank=16, targets="attention+ff+proj+conv", exclude=["attn2"], continue_from=str(DEMO_LORA)
    )
    assert all(one.abs().max() > 0 for one in network.deltas().values())


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"rank": 1, "conv_rank": 2}, "has rank 2 in the file and 1 in the network: set rank to 2"),
        ({"rank": 2}, "is adapted in the file and not in the network"),
        ({"type": "dora"}, "a network of type dora cannot go on from first.safetensors"),
        ({"rank": 2, "conv_rank": 2, "start": "pissa"}, "continue_from has values already"),
    ],
)
def test_what_cannot_go_on(model: DiffusersDenoiser, file: Path, settings: dict[str, object], fault: str) -> None:
    before = networks.state(model)
    with pytest.raises(ConfigError, match=fault):
        networks.attach(model, text_encoder=True, continue_from=str(file), **settings)
    after = networks.state(model)
    assert before.keys() == after.keys()


def test_a_loha_cannot_become_a_lora(model: DiffusersDenoiser, tmp_path: Path) -> None:
    network = networks.attach(model, type="loha")
    convert_lora(network.adapter(), tmp_path / "loha.safetensors")
    network.detach()
    with pytest.raises(ConfigError, match="is loha, and only LoRA and LoCon can go on"):
        networks.attach(model, continue_from=str(tmp_path / "loha.safetensors"))
