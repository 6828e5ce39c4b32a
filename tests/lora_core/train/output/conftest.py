"""Adapters on the demo base with factors as after a training, and what PEFT says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_core.stack import Adapter
from lora_core.train.config import ModelSection, NetworkSection, TextEncoderSection, TrainConfig
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.network import Network
from lora_core.train.network.deltas import Deltas

TOKEN = {"<s1>": {"clip_l": torch.arange(128.0)[None] / 128}}


class Trained:
    """An adapter and PEFT's own word on what it changes; the layers stay in the model as long as the test runs."""

    def __init__(self, network: Network) -> None:
        self.network = network

    @property
    def adapter(self) -> Adapter:
        return self.network.adapter()

    @property
    def deltas(self) -> Deltas:
        return self.network.deltas()


Train = Callable[..., Trained]


@pytest.fixture(scope="session")
def denoiser(repository: Path) -> DiffusersDenoiser:
    return DiffusersDenoiser.load(ModelSection(base=str(repository / "demo" / "model")), device=torch.device("cpu"))


@pytest.fixture
def train(denoiser: DiffusersDenoiser) -> Iterator[Train]:
    """``train(type="dora", size=0.02)``: start values of those settings, moved by random numbers of that size; of the
    text encoder too, unless ``text`` is false."""
    with ExitStack() as stack:
        yield lambda size=0.02, text=True, **network: stack.enter_context(_trained(denoiser, size, text, network))


@contextmanager
def _trained(denoiser: DiffusersDenoiser, size: float, text: bool, settings: dict[str, Any]) -> Iterator[Trained]:
    section = NetworkSection.model_validate({"rank": 4, "alpha": 2.0, "targets": "attention", **settings})
    network = Network.attach(denoiser, section, TextEncoderSection(train=text), 0, 1e-3)
    try:
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += size * torch.randn(parameter.shape, generator=random)
        yield Trained(network)
    finally:
        network.detach()


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "model": {"base": "/home/ann/models/base.safetensors"},
            "data": {"folder": "/home/ann/pictures/cat", "trigger": "sks cat", "resolution": [64, 48]},
            "output": {"folder": str(tmp_path), "name": "cat"},
        }
    )
