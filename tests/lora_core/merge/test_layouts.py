"""Layouts that circulate beside those of the inventories: averages, text encoders alone, fused attention."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import inventories
from lora_core.merge import open_checkpoint
from lora_core.types import DENOISER, TEXT_ENCODER, TEXT_ENCODER_2, ModuleKey, Slice, Target
from sparse_files import sparse_file

Shapes = dict[str, list[int]]

CLIP_H, CLIP_G = 389, 517
UNET = {DENOISER: 686}


def shapes(keys: Path, name: str) -> Shapes:
    return inventories.read(keys / "base" / f"{name}.json")["tensors"]


def found(path: Path) -> tuple[str, dict[str, int]]:
    checkpoint = open_checkpoint(path)
    return checkpoint.architecture.name, dict(Counter(target.module.component for target in checkpoint.places))


def test_averages_of_the_training_are_no_part_of_the_model(keys: Path, tmp_path: Path) -> None:
    """Full checkpoints of SD 1 carry the weights' averages along, under names without dots."""
    tensors = shapes(keys, "sd15__ldm") | shapes(keys, "sd15__ldm-ema-part")
    checkpoint = open_checkpoint(sparse_file(tmp_path / "full.safetensors", tensors))
    assert checkpoint.architecture.name == "sd15"
    assert not any(place.key.startswith("model_ema") for place in checkpoint.places.values())


def test_sd_2_in_the_layout_of_sdxl(keys: Path, tmp_path: Path) -> None:
    older, newer = "cond_stage_model.model.", "conditioner.embedders.0.model."
    tensors = {key.replace(older, newer): shape for key, shape in shapes(keys, "sd21__ldm").items()}
    assert found(sparse_file(tmp_path / "turbo.safetensors", tensors)) == ("sd21", {**UNET, TEXT_ENCODER: CLIP_H})


def test_a_text_encoder_alone_as_open_clip_has_it(keys: Path, tmp_path: Path) -> None:
    prefix = "conditioner.embedders.1.model."
    tensors = {
        key.removeprefix(prefix): shape for key, shape in shapes(keys, "sdxl__sgm").items() if key.startswith(prefix)
    }
    assert found(sparse_file(tmp_path / "clip_g.safetensors", tensors)) == ("sdxl", {TEXT_ENCODER_2: CLIP_G})


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."], ids=["stage alone", "all in one"])
def test_cascade_with_its_fused_attention(prefix: str, keys: Path, tmp_path: Path) -> None:
    """Stability's files: q, k and v of an attention are one matrix, as torch's own attention has them."""
    tensors = {prefix + key: shape for key, shape in fused(shapes(keys, "cascade-stage-c__native")).items()}
    checkpoint = open_checkpoint(sparse_file(tmp_path / "stage_c.safetensors", tensors))
    place = checkpoint.places[Target(ModuleKey(DENOISER, "down_blocks.0.2.attention.attn.to_v"))]

    assert checkpoint.architecture.name == "cascade_c"
    assert len(checkpoint.places) == 1550
    assert place.key == f"{prefix}down_blocks.0.2.attention.attn.in_proj_weight"
    assert place.slice == Slice(0, 2 * 2048, 2048)


def fused(tensors: Shapes) -> Shapes:
    """The same with q, k and v in one."""
    rows: Shapes = {}
    for key, shape in tensors.items():
        name = re.sub(r"\.to_[qkv]\.(weight|bias)$", r".in_proj_\1", key)
        rows[name] = [rows.get(name, [0])[0] + shape[0], *shape[1:]]
    return rows
