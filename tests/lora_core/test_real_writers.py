"""Files from the libraries that write them: diffusers and PEFT, on the demo pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_core import load_adapter
from lora_core.architectures import ARCHITECTURES

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "proj_in", "proj_out"]


@pytest.fixture
def pipeline(repository: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(
        repository / "demo" / "model", safety_checker=None, feature_extractor=None, local_files_only=True
    )


def randomise(module: torch.nn.Module) -> None:
    """PEFT starts with up = 0; give every factor a value so that a difference shows."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 10


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rslora", "dora"])
def test_save_lora_weights_of_diffusers(pipeline: Any, tmp_path: Path, settings: dict[str, bool]) -> None:
    """Every tensor is used, and each delta is what PEFT itself merges, alpha from the file's own metadata."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    config = LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, alpha_pattern={"conv1": 2}, **settings)
    text_config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])
    before = {name: module.weight.detach().clone() for name, module in weights(pipeline.unet)}
    pipeline.unet.add_adapter(config)
    pipeline.text_encoder.add_adapter(text_config)
    randomise(pipeline.unet)
    randomise(pipeline.text_encoder)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet)),
        text_encoder_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.text_encoder)),
        unet_lora_adapter_metadata=config.to_dict(),
        text_encoder_lora_adapter_metadata=text_config.to_dict(),
    )

    adapter = load_adapter(tmp_path / "pytorch_lora_weights.safetensors", strict=True)

    assert adapter.architecture == "loom_demo"
    assert adapter.report.format == "diffusers"
    assert adapter.report.ignored == {}
    architecture = ARCHITECTURES.get("loom_demo")
    merged = {name: merge(module) for name, module in adapted(pipeline.unet)}
    compared = 0
    for target, delta in adapter.deltas:
        module = architecture.module(target.module)
        assert module is not None
        if target.module.component != "denoiser":
            continue
        ours = delta.apply(before[module.diffusers].float(), 1.0)
        # float32 products of rank 4 in another order of additions
        torch.testing.assert_close(ours, merged[module.diffusers], rtol=1e-5, atol=1e-5)
        compared += 1
    assert compared == len(merged)
    assert {target.module.component for target, _ in adapter.deltas} == {"denoiser", "text_encoder"}


def weights(model: torch.nn.Module) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if getattr(module, "weight", None) is not None]


def adapted(model: torch.nn.Module) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "get_delta_weight")]


def merge(layer: Any) -> torch.Tensor:
    layer.merge(safe_merge=True)
    return layer.get_base_layer().weight.detach().float()
