"""Folders that PEFT's own ``save_pretrained`` writes for the demo's UNet, loaded whole: names, settings and numbers.

Tolerances are ``assert_close``'s for float32 (1.3e-6 relative, 1e-5 absolute): the same sums in another order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import save_file

from lora_core import load_adapter
from lora_core.architectures import ARCHITECTURES
from lora_core.errors import CorruptFileError
from lora_core.inspect import inspect_file
from lora_core.types import DENOISER

LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in"]
ALL = [*LAYERS, "conv1"]
# What PEFT's configuration can say, and the type that the file is then of.
CONFIGS: dict[str, tuple[str, Any]] = {
    "patterns": (
        "lora",
        lambda: peft.LoraConfig(
            r=4, lora_alpha=6, target_modules=ALL, alpha_pattern={"conv1": 2}, rank_pattern={"to_k": 2}
        ),
    ),
    "rslora": ("lora", lambda: peft.LoraConfig(r=4, lora_alpha=6, target_modules=ALL, use_rslora=True)),
    "dora": ("dora", lambda: peft.LoraConfig(r=4, lora_alpha=6, target_modules=ALL, use_dora=True)),
    "bias": ("lora", lambda: peft.LoraConfig(r=4, lora_alpha=6, target_modules=["to_out.0", "conv1"], lora_bias=True)),
    "loha": ("loha", lambda: peft.LoHaConfig(r=4, alpha=3, target_modules=ALL, use_effective_conv2d=True)),
    "lokr": ("lokr", lambda: peft.LoKrConfig(r=2, alpha=3, target_modules=ALL, alpha_pattern={"conv1": 5})),
    "lokr, whole factors": ("lokr", lambda: peft.LoKrConfig(r=64, alpha=3, target_modules=ALL)),
    "ia3": ("ia3", lambda: peft.IA3Config(target_modules=ALL, feedforward_modules=["to_out.0"])),
    "oft": ("peft-oft", lambda: peft.OFTConfig(oft_block_size=8, target_modules=ALL, use_cayley_neumann=True)),
    "boft": ("peft-boft", lambda: peft.BOFTConfig(boft_block_size=4, target_modules=LAYERS)),
    "hra": ("hra", lambda: peft.HRAConfig(r=4, target_modules=LAYERS, apply_GS=True)),
    # PEFT divides by the rank at the start, init_r, and not by r nor by what is left of it.
    "adalora": (
        "adalora",
        lambda: peft.AdaLoraConfig(init_r=4, target_r=2, lora_alpha=6, target_modules=LAYERS, total_step=9),
    ),
}


@pytest.mark.filterwarnings("ignore:Adapter .default.")  # PEFT takes its own bias for a factor of the wrong shape
@pytest.mark.filterwarnings("ignore:Failed to load the CUDA", "ignore:Setting boft_n_butterfly")
@pytest.mark.parametrize("case", CONFIGS)
def test_a_folder_does_what_peft_merges(case: str, repository: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    kind, config = CONFIGS[case]
    unet: Any = UNet2DConditionModel.from_pretrained(repository / "demo" / "model" / "unet", local_files_only=True)
    before = {name: parameter.detach().clone() for name, parameter in unet.named_parameters()}
    model = peft.get_peft_model(unet, config())
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=generator) / 10
    model.save_pretrained(tmp_path)
    after = {name: tensor.detach() for name, tensor in model.merge_and_unload().named_parameters()}

    adapter = load_adapter(tmp_path, strict=True)

    assert (adapter.report.format, adapter.architecture, dict(adapter.report.ignored)) == ("peft", "loom_demo", {})
    report = inspect_file(tmp_path, hashes=False)
    assert list(report["adapter_types"]) == [kind]
    assert "notes" not in report
    architecture = ARCHITECTURES.get("loom_demo")
    for target, delta in adapter.deltas:
        module = architecture.module(target.module)
        assert module is not None
        name = f"{module.diffusers}.{target.parameter}"
        torch.testing.assert_close(delta.apply(before.pop(name), 1.0), after[name])
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())  # nothing else was to change


NAME = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def folder(path: Path, config: str | None) -> Path:
    """A folder with one module of SD 1.5, up @ down being 4 everywhere."""
    tensors = {f"{NAME}.lora_A.weight": torch.ones(4, 320), f"{NAME}.lora_B.weight": torch.ones(320, 4)}
    save_file(tensors, path / "adapter_model.safetensors")
    if config is not None:
        (path / "adapter_config.json").write_text(config)
    return path


def test_a_folder_without_settings_says_that_its_scale_is_a_guess(tmp_path: Path) -> None:
    report = inspect_file(folder(tmp_path, None), hashes=False)
    assert report["notes"] == ["no adapter_config.json beside it, which would state alpha: a scale of 1 is taken"]


@pytest.mark.parametrize("value", ['"eight"', "NaN", "[8]", "true"])
@pytest.mark.parametrize("setting", ["lora_alpha", "r", "alpha"])
def test_settings_that_are_no_numbers_are_not_a_scale_of_one(tmp_path: Path, setting: str, value: str) -> None:
    config = json.dumps({"r": 4, "lora_alpha": 8, setting: "?"}).replace('"?"', value)
    with pytest.raises(CorruptFileError, match=rf"{setting} is .*, expected a number"):
        load_adapter(folder(tmp_path, config))


def test_an_alpha_of_one_module_that_is_no_number(tmp_path: Path) -> None:
    config = '{"r": 4, "lora_alpha": 8, "alpha_pattern": {"to_q": "much"}}'
    with pytest.raises(CorruptFileError, match="alpha_pattern of to_q is 'much', expected a number"):
        load_adapter(folder(tmp_path, config))


def test_an_alpha_of_nothing_is_no_fault(tmp_path: Path) -> None:
    adapter = load_adapter(folder(tmp_path, '{"r": 4, "lora_alpha": null}'))
    assert [delta.scale for target, delta in adapter.deltas if target.module.component == DENOISER] == [1.0]
