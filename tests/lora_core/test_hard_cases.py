"""Keys from bug reports of other programs (``hard_cases.json``), and what has to become of such files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from lora_core import Adapter, map_source
from lora_core.architectures import ARCHITECTURES
from lora_core.errors import WrongBaseError
from lora_core.fitting import names_of
from lora_core.formats import FORMATS, Embedded, Ignored, NamedRole
from lora_core.io import TensorDict
from lora_core.patching import bind
from lora_core.stack import Stack, StackEntry
from lora_core.types import Slice, Target

# What the reports call a base -> families. Where they name none, any may have the module.
BASES = {"refiner": "sdxl_refiner", "qwen-image": "qwen_image", "z-image": "z_image", "hunyuan-video": "hunyuan_video"}
# Quoted in the reports, but no keys of a LoRA file: a checkpoint's weights with their sizes, a module's name alone.
NO_KEYS = re.compile(r" elements$|to_qkv_mlp_proj$")
# LTX-2, whose text projection lies outside the transformer, is no family of the table.
NO_FAMILY = ("text_embedding_projection.aggregate_embed.lora_A.weight",)


def families(base: str) -> set[str]:
    names = {BASES.get(name, name.replace("-", "_")) for name in base.split("/")}
    return {row.name for row in ARCHITECTURES if any(row.name.startswith(name) for name in names)}


def places(key: str) -> tuple[set[str], bool]:
    """The families that have the key's module, and whether a format knows the key as something else."""
    found: set[str] = set()
    other = False
    for scheme in FORMATS:
        split = scheme.split(key)
        if isinstance(split, NamedRole):
            found |= {row.name for row in ARCHITECTURES if split.name in names_of(scheme.name, row.name)}
        other |= isinstance(split, Embedded | Ignored)
    return found, other


def test_every_key_of_every_report_is_known(keys: Path) -> None:
    looked_at = 0
    for case in json.loads((keys / "hard_cases.json").read_text()):
        for key in case["keys"]:
            if NO_KEYS.search(key) or key in NO_FAMILY:
                continue
            found, other = places(key)
            assert other or (found & (families(case["base"]) or found)), f"{case['issue']}: {key}"
            looked_at += 1
    assert looked_at > 90


def adapter_of(tensors: dict[str, torch.Tensor], **choice: str) -> Adapter:
    return map_source(TensorDict(tensors, "hard.safetensors"), **choice)


def factors(name: str, out: int, into: int, rank: int = 2, suffixes: tuple[str, str] = ("lora_down", "lora_up")):
    generator = torch.Generator().manual_seed(len(name))
    down, up = torch.randn(rank, into, generator=generator), torch.randn(out, rank, generator=generator)
    return {f"{name}.{suffixes[0]}.weight": down, f"{name}.{suffixes[1]}.weight": up}


def test_factors_that_changed_places() -> None:
    """OneTrainer, FLUX.2: the up factor is (rank, in), the down factor (out, rank)."""
    name = "transformer.transformer_blocks.0.attn.to_q"
    tensors = factors(name, 6144, 6144, rank=32)
    right = adapter_of(tensors, architecture="flux2").deltas[0][1].factors()
    down, up = tensors.values()
    swapped = {f"{name}.lora_down.weight": up, f"{name}.lora_up.weight": down}
    found = adapter_of(swapped, architecture="flux2").deltas[0][1].factors()

    assert right is not None
    assert found is not None
    assert torch.equal(found.up, right.up)
    assert torch.equal(found.down, right.down)


WIDTH = 3840
DOTTED = ("lora.down", "lora.up")


def z_image(*leaves: str) -> dict[str, torch.Tensor]:
    """Changes of one layer's attention: ``qkv`` is three times as high as the others."""
    found: dict[str, torch.Tensor] = {}
    for leaf in leaves:
        found |= factors(f"layers.27.attention.{leaf}", WIDTH * (3 if leaf == "qkv" else 1), WIDTH, suffixes=DOTTED)
    return found


def test_a_file_with_fused_and_split_names_of_one_layer_changes_it_once() -> None:
    """Z-Image (huggingface/diffusers 13203): every reader uses one of them."""
    adapter = adapter_of(z_image("qkv", "to_q", "to_k", "to_v", "out", "to_out.0"))

    assert adapter.report.complete
    assert adapter.architecture == "z_image"
    assert [(target.module.path, target.slice) for target, _ in adapter.deltas] == [
        ("layers.27.attention.qkv", None),
        ("layers.27.attention.out", None),
    ]
    reason = adapter.report.ignored["layers.27.attention.to_k.lora.up.weight"]
    assert reason.startswith("the same change as layers.27.attention.qkv, under another name")
    assert adapter.report.total == 12


def test_rows_beside_a_fused_matrix_that_are_not_all_of_it_are_a_change_of_their_own() -> None:
    adapter = adapter_of(z_image("qkv", "to_k"))

    assert [target.slice for target, _ in adapter.deltas] == [None, Slice(0, WIDTH, WIDTH)]
    assert adapter.report.ignored == {}
    [patch] = bind(Stack((StackEntry(adapter),)), ARCHITECTURES.get("z_image").shape).patches.values()
    assert len(patch.parts) == 2


def test_split_names_on_a_fused_matrix_change_their_rows() -> None:
    names = [f"transformer.single_transformer_blocks.3.attn.to_{leaf}" for leaf in "qkv"]
    tensors = {key: value for name in names for key, value in factors(name, 3072, 3072).items()}
    adapter = adapter_of(tensors, architecture="flux")

    assert {target.module.path for target, _ in adapter.deltas} == {"single_blocks.3.linear1"}
    assert [target.slice for target, _ in adapter.deltas] == [Slice(0, 3072 * part, 3072) for part in range(3)]


def test_a_fused_name_on_split_modules_gives_each_its_rows() -> None:
    """open_clip's in_proj, of an encoder whose q, k and v are three modules here."""
    width = 1024
    tensors = factors("lora_te_transformer_resblocks_5_attn_in_proj", 3 * width, width)
    adapter = adapter_of(tensors, architecture="sd21")
    whole = (
        tensors["lora_te_transformer_resblocks_5_attn_in_proj.lora_up.weight"]
        @ (tensors["lora_te_transformer_resblocks_5_attn_in_proj.lora_down.weight"])
    )

    paths = [target.module.path.rpartition(".")[2] for target, _ in adapter.deltas]
    assert paths == ["q_proj", "k_proj", "v_proj"]
    for part, (_, delta) in enumerate(adapter.deltas):
        changed = delta.apply(torch.zeros(width, width), 1.0)
        # float32, the same product of rank 2 on fewer rows
        torch.testing.assert_close(changed, whole[part * width : (part + 1) * width], rtol=1e-6, atol=1e-6)


def test_scale_and_shift_of_diffusers_last_norm_are_the_other_way_round() -> None:
    tensors = factors("transformer.norm_out.linear", 6144, 3072, suffixes=("lora_A", "lora_B"))
    adapter = adapter_of(tensors, architecture="flux")
    places = [(target.module.path, target.slice) for target, _ in adapter.deltas]

    last = "final_layer.adaLN_modulation.1"
    assert places == [(last, Slice(0, 3072, 3072)), (last, Slice(0, 0, 3072))]


def test_a_lora_for_wan_14b_on_a_wan_of_1_3b_is_refused_by_name() -> None:
    """tdrussell/diffusion-pipe 114: names of blocks 0 to 29 match, shapes do not."""
    tensors = {
        key: value
        for block in range(40)
        for key, value in factors(f"diffusion_model.blocks.{block}.self_attn.v", 5120, 5120).items()
    }
    adapter = adapter_of(tensors, prefer="wan21_t2v_1_3b")
    small = ARCHITECTURES.get("wan21_t2v_1_3b")

    with pytest.raises(WrongBaseError, match=r"made for Wan 2.*14B"):
        bind(Stack((StackEntry(adapter),)), lambda target: small.shape(Target(*target[:2])), small)


def test_image_layers_of_a_lora_are_reported_where_the_model_has_none() -> None:
    """kijai/ComfyUI-WanVideoWrapper 1862: an image-to-video LoRA on a model without image attention."""
    tensors = {
        key: value
        for block in range(40)
        for leaf in ("self_attn.q", "cross_attn.k_img")
        for key, value in factors(f"diffusion_model.blocks.{block}.{leaf}", 5120, 5120).items()
    }
    adapter = adapter_of(tensors, prefer="wan22_i2v_a14b")
    model = ARCHITECTURES.get("wan22_i2v_a14b")
    [report] = bind(Stack((StackEntry(adapter),)), model.shape, model).reports

    assert adapter.report.complete
    assert (report.fitting, report.total) == (40, 80)
    assert "denoiser.blocks.3.cross_attn.k_img" in report.missing


@pytest.mark.parametrize("alpha", [1.0, 100_000.0])
def test_a_lokr_with_both_factors_whole_has_no_scale(alpha: float) -> None:
    """hako-mikan/sd-webui-supermerger 459: trained with a rank of 100000, the alpha means nothing."""
    name = "lora_unet_input_blocks_4_1_proj_in"
    w1, w2 = torch.randn(8, 8), torch.randn(80, 80)
    tensors = {f"{name}.lokr_w1": w1, f"{name}.lokr_w2": w2, f"{name}.alpha": torch.tensor(alpha)}
    [(_, delta)] = adapter_of(tensors, architecture="sdxl").deltas

    changed = delta.apply(torch.zeros(640, 640), 1.0)
    torch.testing.assert_close(changed, torch.kron(w1, w2), rtol=0, atol=0)


def test_an_integer_alpha_of_each_module() -> None:
    """huggingface/diffusers 3910 and Qwen-Image Lightning: alphas differ, and are int64."""
    first, second = (f"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_{leaf}" for leaf in "qk")
    tensors = {**factors(first, 1280, 1280, 4), **factors(second, 1280, 1280, 4)}
    tensors |= {f"{first}.alpha": torch.tensor(94), f"{second}.alpha": torch.tensor(123)}
    assert [delta.scale for _, delta in adapter_of(tensors).deltas] == [94 / 4, 123 / 4]
