"""The demo's base with adapters, and numbers of trained ones, for the tests of networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_core import Adapter, Stack, StackEntry, Strengths
from lora_core.architectures import ARCHITECTURES
from lora_core.patching import apply_patch, bind
from lora_core.train.config import ModelSection, NetworkSection, TextEncoderSection
from lora_core.train.denoiser import Denoiser
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.network import Network
from lora_core.types import ModuleKey

BASE = Path(__file__).parents[1] / "demo" / "model"
DEMO = ARCHITECTURES.get("loom_demo")
SEED = 1


def denoiser() -> DiffusersDenoiser:
    return DiffusersDenoiser.load(ModelSection(base=str(BASE)))


def attach(model: Denoiser, text_encoder: bool = False, seed: int = SEED, **network: Any) -> Network:
    """Rank 4 in attention and feed-forward where nothing else is said."""
    section = NetworkSection(**{"rank": 4, **network})
    return Network.attach(model, section, TextEncoderSection(train=text_encoder), seed, 1e-3)


def move(network: Network, seed: int = 0, size: float = 0.02) -> None:
    """What training does, in one go: every factor gets some noise."""
    random = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data += torch.randn(parameter.shape, generator=random) * size


def predict(model: Denoiser, prompt: str = "grinning face") -> Tensor:
    """The prediction for fixed noise."""
    noise = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    conditions = model.encode_text([prompt] * 2)
    sizes = torch.tensor([[64, 64, 0, 0, 64, 64]] * 2, dtype=torch.float32)
    return model.predict(noise, torch.tensor([200, 700]), conditions, sizes)


def weights(model: Denoiser) -> dict[ModuleKey, Tensor]:
    """Canonical module -> weight, copied. Without adapters in the model."""
    found: dict[ModuleKey, Tensor] = {}
    for component, module in model.parts.items():
        for path, one in module.named_modules():
            canonical = model.path_of(component, path)
            if canonical and isinstance(getattr(one, "weight", None), Tensor):
                found[ModuleKey(component, canonical)] = one.weight.detach().clone()
    return found


def state(model: Denoiser) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": one.clone() for name, part in model.parts.items() for key, one in part.state_dict().items()
    }


def changes(adapter: Adapter, base: dict[ModuleKey, Tensor], strength: float = 1.0) -> dict[ModuleKey, Tensor]:
    """What our patches add to each weight. In float64, where W + dW - W loses nothing of dW."""
    stack = Stack((StackEntry(adapter, Strengths(strength, strength)),))
    patches = bind(stack, DEMO.shape, DEMO).patches
    return {
        target.module: apply_patch(base[target.module].double(), patch) - base[target.module].double()
        for target, patch in patches.items()
    }


def worst(got: dict[ModuleKey, Tensor], expected: dict[ModuleKey, Tensor]) -> float:
    """Largest difference over the largest number, of any module."""
    assert got.keys() == expected.keys()
    return max(((got[key] - one).abs().max() / one.abs().max()).item() for key, one in expected.items())
