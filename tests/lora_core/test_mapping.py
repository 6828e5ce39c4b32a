"""From a file to an adapter and its report: what is used, what is left over, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora_core import load_adapter, map_source
from lora_core.architectures import ARCHITECTURES
from lora_core.errors import (
    CorruptFileError,
    UnknownArchitectureError,
    UnknownFormatError,
    UnknownNameError,
    UnmappedKeysError,
    WrongBaseError,
)
from lora_core.io import TensorDict
from lora_core.types import Misfit, ModuleKey, Target

NAME = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"  # 1280 x 768 in SD 1.5, 1280 x 2048 in SDXL
PATH = "middle_block.1.transformer_blocks.0.attn2.to_k"


def pair(name: str = NAME, out: int = 1280, into: int = 768, rank: int = 4) -> dict[str, torch.Tensor]:
    return {f"{name}.lora_down.weight": torch.ones(rank, into), f"{name}.lora_up.weight": torch.ones(out, rank)}


def many(count: int = 12) -> dict[str, torch.Tensor]:
    """A file of the usual kind: text-encoder layers that SD 1.5 has."""
    names = [f"lora_te_text_model_encoder_layers_{index}_mlp_fc1" for index in range(count)]
    return {key: tensor for name in names for key, tensor in pair(name, 3072, 768).items()}


def adapter_of(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None, **options: str):
    return map_source(TensorDict(tensors, "ink.safetensors", metadata), **options)


def test_one_module() -> None:
    adapter = adapter_of(pair() | {f"{NAME}.alpha": torch.tensor(2.0)})
    [(target, delta)] = adapter.deltas
    assert target == Target(ModuleKey("denoiser", PATH))
    assert (delta.type, delta.rank, delta.scale) == ("lora", 4, 0.5)
    assert adapter.report.complete
    assert adapter.report.total == 3


def test_shapes_tell_sd15_from_sdxl() -> None:
    assert adapter_of(pair(into=768)).architecture == "sd15"
    assert adapter_of(pair(into=2048)).architecture == "sdxl"


def test_metadata_that_lies_does_not_decide() -> None:
    lying = {"ss_base_model_version": "sdxl_base_v1-0", "ss_network_dim": "1"}
    adapter = adapter_of(pair(into=768), lying)
    assert adapter.architecture == "sd15"
    assert adapter.deltas[0][1].rank == 4


def test_where_shapes_fit_both_the_model_at_hand_decides_then_the_metadata() -> None:
    """A slider on self-attention alone: 320 x 320 on names that both bases have."""
    both = pair("lora_unet_conv_in", out=320, into=4 * 9)
    assert adapter_of(both).architecture == "sd15"
    assert adapter_of(both, {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}).architecture == "sdxl"
    assert adapter_of(both, {"ss_base_model_version": "sd_v1"}, prefer="sdxl").architecture == "sdxl"


@pytest.mark.parametrize("family", ["sdxl", "ssd_1b", "segmind_vega"])
def test_a_part_that_relatives_share_is_for_the_model_at_hand_and_a_whole_lora_for_its_own(family: str) -> None:
    """SSD-1B and Vega are SDXL with fewer layers: names and shapes of one layer tell nothing."""
    layer = pair("lora_unet_input_blocks_7_1_transformer_blocks_0_attn2_to_k", 1280, 2048)
    assert adapter_of(layer).architecture == "sdxl"
    assert adapter_of(layer, prefer=family).architecture == family
    attention = {
        path.replace(".", "_"): module.shapes["weight"]
        for path, module in ARCHITECTURES.get(family).components[0].modules.items()
        if "attn" in path and len(module.shapes["weight"]) == 2
    }
    whole = {
        key: tensor
        for name, (out, into) in attention.items()
        for key, tensor in pair(f"lora_unet_{name}", out, into, rank=1).items()
    }
    assert {adapter_of(whole, prefer=other).architecture for other in ("sdxl", "ssd_1b", "sd15")} == {family}


def test_alpha_may_be_an_integer() -> None:
    adapter = adapter_of(pair() | {f"{NAME}.alpha": torch.tensor(8, dtype=torch.int64)})
    assert adapter.deltas[0][1].scale == 2.0


def test_no_alpha_means_scale_one() -> None:
    assert adapter_of(pair()).deltas[0][1].scale == 1.0


def test_a_name_that_fits_with_a_wrong_shape_is_reported_and_not_used() -> None:
    bad = pair("lora_unet_mid_block_attentions_0_proj_in", into=640)
    report = adapter_of(many() | bad).report
    key = "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"
    assert report.misfit == (Misfit(key, (4, 1280, 1, 1), (4, 640)),)
    assert list(report.ignored) == [key.replace("down", "up")]
    assert len(report.used) == 24
    assert list(report.left) == ["lora_unet_mid_block_attentions_0_proj_in"]


def test_up_and_down_of_different_rank_do_not_fit() -> None:
    other = pair("lora_unet_mid_block_attentions_0_proj_in", into=1280)
    other["lora_unet_mid_block_attentions_0_proj_in.lora_up.weight"] = torch.ones(1280, 8)
    [misfit] = adapter_of(many() | other).report.misfit
    assert (misfit.expected, misfit.got) == ((1280, 4), (1280, 8))


def test_an_orphan_is_named_and_does_no_harm() -> None:
    orphan = "lora_unet_conv_in.lora_up.weight"
    report = adapter_of(pair() | {orphan: torch.ones(320, 4)}).report
    assert "the down factor of this module is not in the file" in report.ignored[orphan]


def test_a_module_that_the_base_lacks_is_unmatched() -> None:
    report = adapter_of(pair() | pair("lora_unet_down_blocks_9_conv")).report
    assert report.unmatched["lora_unet_down_blocks_9_conv.lora_up.weight"] == (
        "SD 1.5 has no module lora_unet_down_blocks_9_conv"
    )


def test_an_adapter_type_that_is_not_known_is_unmatched() -> None:
    name = "lora_unet_conv_in"
    strange = {f"{name}.frobnicate_a": torch.ones(4, 4), f"{name}.alpha": torch.tensor(1.0)}
    report = adapter_of(pair() | strange).report
    assert set(report.unmatched) == set(strange)


def test_strict_names_file_key_and_reason(tmp_path: Path) -> None:
    save_file(pair() | pair("lora_unet_down_blocks_9_conv"), tmp_path / "ink.safetensors")
    assert len(load_adapter(tmp_path / "ink.safetensors").deltas) == 1
    with pytest.raises(UnmappedKeysError, match=r"^ink.safetensors: 2 of 4 tensors are not used .*has no module") as e:
        load_adapter(tmp_path / "ink.safetensors", strict=True)
    assert isinstance(e.value, KeyError)
    assert "\n" not in str(e.value)


def test_the_wrong_base() -> None:
    with pytest.raises(WrongBaseError) as caught:
        adapter_of(pair(into=2048), architecture="sd15")
    assert str(caught.value).startswith("ink.safetensors: made for SDXL, the model is SD 1.5: 0 of 1 modules fit.")


def test_a_base_that_is_not_known_says_what_the_metadata_claims() -> None:
    tensors = pair("lora_unet_tower_0_attn_qkv", 9216, 3072)
    with pytest.raises(UnknownArchitectureError, match=r"metadata says tower-1/lora: none of 1 modules fits"):
        adapter_of(tensors, {"modelspec.architecture": "tower-1/lora"})


def test_a_base_that_shares_modules_with_a_known_one_is_not_taken_for_it() -> None:
    """SD 2.1 has SD 1.5's names and most of its widths; Flux has its text encoder. Neither is SD 1.5."""
    wide = [f"lora_unet_down_blocks_0_attentions_{n}_transformer_blocks_0_attn2_to_k" for n in range(2)]
    sd21 = many(6) | pair(wide[0], 320, 1024) | pair(wide[1], 320, 1024)
    with pytest.raises(UnknownArchitectureError, match=r"SD 1.5 comes nearest: 6 of 8 modules fit .*got \(4, 1024\)"):
        adapter_of(sd21)
    flux = many(2) | many(0) | {k: v for n in range(3) for k, v in pair(f"lora_unet_double_blocks_{n}_qkv").items()}
    with pytest.raises(UnknownArchitectureError, match="2 of 5 modules fit") as caught:
        adapter_of(flux)
    assert (caught.value.fitting, caught.value.total) == (2, 5)


def test_names_that_fit_with_shapes_that_do_not_say_so() -> None:
    with pytest.raises(UnknownArchitectureError, match=r"proj_in.lora_down.weight: expected \(4, 1280, 1, 1\)"):
        adapter_of(pair("lora_unet_mid_block_attentions_0_proj_in", into=1024))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[1]", '{"a": ' + "9" * 5000 + "}", '{"unet.alpha_pattern": {"([a-z_0-9.]+)+!": 3}}']
)
def test_metadata_of_a_stranger_neither_crashes_nor_hangs(text: str) -> None:
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    tensors = {f"{name}.lora_A.weight": torch.ones(4, 768), f"{name}.lora_B.weight": torch.ones(1280, 4)}
    with pytest.raises(CorruptFileError, match=r"ink\.safetensors"):
        adapter_of(tensors, {"lora_adapter_metadata": text})
    assert adapter_of(tensors, {"lora_adapter_metadata": '{"unet.alpha_pattern": [1]}'}).deltas[0][1].scale == 1


def test_a_checkpoint_is_not_a_lora() -> None:
    with pytest.raises(UnknownFormatError, match=r"its keys look like 'model.diffusion_model.out.2.bias'"):
        adapter_of({"model.diffusion_model.out.2.bias": torch.ones(4)})


def test_an_adapter_type_of_a_later_version_names_the_known_ones() -> None:
    with pytest.raises(UnknownFormatError, match=r"Known adapter types: DoRA, .*LoRA"):
        adapter_of({f"{NAME}.frobnicate_a": torch.ones(4, 4), f"{NAME}.alpha": torch.tensor(1.0)})


def test_a_file_without_tensors() -> None:
    with pytest.raises(CorruptFileError, match="holds no tensor"):
        adapter_of({})


def test_a_missing_file_and_a_misspelt_architecture(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_adapter(tmp_path / "none.safetensors")
    save_file(pair(), tmp_path / "ink.safetensors")
    with pytest.raises(UnknownNameError, match=r"did you mean 'sd(15|21)'"):
        load_adapter(tmp_path / "ink.safetensors", architecture="sd51")


def test_a_file_is_parsed_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "ink.safetensors"
    save_file(pair(), path)
    first = load_adapter(path)
    assert load_adapter(path) is first
    save_file(pair(rank=8), path)
    second = load_adapter(path)
    assert second.deltas[0][1].rank == 8
    assert second.digest != first.digest


def test_alpha_from_the_metadata_of_diffusers() -> None:
    """Newer diffusers keep PEFT's configuration as JSON; with rsLoRA the scale is alpha / sqrt(rank)."""
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    tensors = {f"{name}.lora_A.weight": torch.ones(4, 768), f"{name}.lora_B.weight": torch.ones(1280, 4)}

    def scale(**config: object) -> float:
        text = json.dumps({f"unet.{key}": value for key, value in config.items()})
        return adapter_of(tensors, {"lora_adapter_metadata": text}).deltas[0][1].scale

    assert scale(r=4, lora_alpha=8) == 2.0
    assert scale(r=4, lora_alpha=8, use_rslora=True) == 4.0
    assert scale(r=4, lora_alpha=8, alpha_pattern={"attn2.to_k": 2}) == 0.5
    assert scale(r=4, lora_alpha=8, alpha_pattern={"attn1.to_k": 2}) == 2.0
    with pytest.raises(CorruptFileError, match="metadata lora_adapter_metadata: not JSON"):
        adapter_of(tensors, {"lora_adapter_metadata": "{"})
