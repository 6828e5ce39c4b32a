"""Every checkpoint inventory: the right family, every parameter of what is there reached, none misplaced."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import inventories
from lora_core.architectures import ARCHITECTURES, hunyuan_video
from lora_core.errors import ConfigError, CorruptFileError, UnknownCheckpointError
from lora_core.merge import Checkpoint, open_checkpoint
from lora_core.types import DENOISER, TEXT_ENCODER, TEXT_ENCODER_2, TEXT_ENCODER_3
from sparse_files import sparse_file

Parts = Mapping[str, int]

CLIP_L, CLIP_G, CLIP_H, T5 = 196, 517, 389, 219
# inventory -> family, and the parameters of each component that is in the file. That of SD 2's text encoder in
# diffusers and in Waifu Diffusion lacks the last layer, of which nothing comes, and the projection.
WHOLE: dict[str, tuple[str, Parts]] = {
    "anima__native": ("anima", {DENOISER: 685}),
    "cascade-stage-b__native": ("cascade_b", {DENOISER: 1726}),
    "cascade-stage-c__native": ("cascade_c", {DENOISER: 1550}),
    "chroma__diffusers_transformer": ("chroma", {DENOISER: 643}),
    "chroma__native": ("chroma", {DENOISER: 643}),
    "cosmos-predict2-2b__native": ("cosmos_predict2_2b", {DENOISER: 567}),
    "flux-dev__comfy-allinone": ("flux", {DENOISER: 780, TEXT_ENCODER: CLIP_L, TEXT_ENCODER_2: T5}),
    "flux-dev__diffusers_transformer": ("flux", {DENOISER: 780}),
    "flux-schnell__diffusers_transformer": ("flux_schnell", {DENOISER: 776}),
    "flux-schnell__native": ("flux_schnell", {DENOISER: 776}),
    "flux2-dev__diffusers_transformer": ("flux2", {DENOISER: 299}),
    "flux2-dev__native": ("flux2", {DENOISER: 299}),
    "flux2-klein-4b__native": ("flux2_klein_4b", {DENOISER: 149}),
    "flux2-klein-9b__native": ("flux2_klein_9b", {DENOISER: 201}),
    "hunyuan-video__diffusers_transformer": ("hunyuan_video", {DENOISER: 856}),
    "hunyuan-video__native": ("hunyuan_video", {DENOISER: 856}),
    "lumina2__diffusers_transformer": ("lumina2", {DENOISER: 399}),
    "lumina2__native": ("lumina2", {DENOISER: 399}),
    "qwen-image__diffusers_transformer": ("qwen_image", {DENOISER: 1933}),
    "qwen-image__native": ("qwen_image", {DENOISER: 1933}),
    "sd15-inpaint__ldm-unet": ("sd15_inpaint", {DENOISER: 686}),
    "sd15-pix2pix__ldm-unet": ("sd15_pix2pix", {DENOISER: 686}),
    "sd15__diffusers_text_encoder": ("sd15", {TEXT_ENCODER: CLIP_L}),
    "sd15__diffusers_unet": ("sd15", {DENOISER: 686}),
    "sd15__ldm": ("sd15", {DENOISER: 686, TEXT_ENCODER: CLIP_L}),
    "sd15__ldm-nai": ("sd15", {DENOISER: 686, TEXT_ENCODER: CLIP_L}),
    "sd21-depth__ldm": ("sd21_depth", {DENOISER: 686}),
    "sd21-inpaint__ldm-unet": ("sd21_inpaint", {DENOISER: 686}),
    "sd21__diffusers_text_encoder": ("sd21", {TEXT_ENCODER: CLIP_H - 17}),
    "sd21__diffusers_unet": ("sd21", {DENOISER: 686}),
    "sd21__ldm": ("sd21", {DENOISER: 686, TEXT_ENCODER: CLIP_H}),
    "sd21__ldm-wd": ("sd21", {DENOISER: 686, TEXT_ENCODER: CLIP_H - 17}),
    "sd3-medium__comfy-allinone": (
        "sd3",
        {DENOISER: 491, TEXT_ENCODER: CLIP_L + 1, TEXT_ENCODER_2: CLIP_G, TEXT_ENCODER_3: T5},
    ),
    "sd3-medium__diffusers_transformer": ("sd3", {DENOISER: 491}),
    "sd35-large__comfy": ("sd35_large", {DENOISER: 923}),
    "sd35-large__diffusers_transformer": ("sd35_large", {DENOISER: 923}),
    "sd35-medium__diffusers_transformer": ("sd35_medium", {DENOISER: 665}),
    "sd35-medium__native": ("sd35_medium", {DENOISER: 665}),
    "sdxl-inpaint__sgm-unet": ("sdxl_inpaint", {DENOISER: 1680}),
    "sdxl-refiner__diffusers_unet": ("sdxl_refiner", {DENOISER: 1220}),
    "sdxl-refiner__sgm": ("sdxl_refiner", {DENOISER: 1220, TEXT_ENCODER: CLIP_G}),
    "sdxl__diffusers_text_encoder": ("sd15", {TEXT_ENCODER: CLIP_L}),  # the same model; nothing tells them apart
    "sdxl__diffusers_text_encoder_2": ("sdxl", {TEXT_ENCODER_2: CLIP_G}),
    "sdxl__diffusers_unet": ("sdxl", {DENOISER: 1680}),
    "sdxl__sgm": ("sdxl", {DENOISER: 1680, TEXT_ENCODER: CLIP_L, TEXT_ENCODER_2: CLIP_G}),
    "wan21-i2v-14b__diffusers_transformer": ("wan21_i2v_14b", {DENOISER: 1303}),
    "wan21-i2v-14b__native": ("wan21_i2v_14b", {DENOISER: 1303}),
    "wan21-t2v-1.3b__diffusers_transformer": ("wan21_t2v_1_3b", {DENOISER: 825}),
    "wan21-t2v-1.3b__native": ("wan21_t2v_1_3b", {DENOISER: 825}),
    "wan21-t2v-14b__diffusers_transformer": ("wan_t2v_14b", {DENOISER: 1095}),
    "wan21-t2v-14b__native": ("wan_t2v_14b", {DENOISER: 1095}),
    "wan22-i2v-a14b__native": ("wan22_i2v_a14b", {DENOISER: 1095}),
    "wan22-ti2v-5b__native": ("wan22_ti2v_5b", {DENOISER: 825}),
    "z-image__diffusers_transformer": ("z_image", {DENOISER: 453}),
    "z-image__native": ("z_image", {DENOISER: 453}),
}
# Inventories of block 0 -> the family of the file that they are of, its parameters, its quantised weights.
SUBSETS = {
    "anima__comfy_subset": ("anima", 685, 0),
    "anima__scaled-fp8_subset": ("anima", 685 - 6 * 19, 280),  # no block of the adapter is known
    "flux-dev__scaled-fp8_subset": ("flux", 780, 314),
    "flux2-dev__fp8mixed_subset": ("flux2", 299, 128),
    "flux2-klein-4b__scaled-fp8_subset": ("flux2_klein_4b", 149, 80),
    "flux2-klein-9b__bfl_subset": ("flux2_klein_9b", 201, 0),
    "z-image__comfy-legacy_subset": ("z_image", 453, 0),
    "z-image__scaled-fp8_subset": ("z_image", 453, 208),
}
# No model that takes a LoRA; lists of module names; a text encoder in part.
OTHERS = {
    "qwen2.5-vl__comfy_subset",
    "sd15__diffusers_vae",
    "sdxl__diffusers_vae",
    "sd15__ldm-ema-part",
    "sd15__kohya-modules",
    "sdxl__kohya-modules",
    "sdxl__kohya-modules-diffusersunet",
}
# What whole checkpoints hold besides denoiser and text encoders.
BESIDES = re.compile(
    r"^(first_stage_model|vae|depth_model|edm_vpred)\.|position_ids$|logit_scale$|sigmas$"
    r"|^(betas|alphas_\w+|sqrt_\w+|log_one_minus_\w+|posterior_\w+|v_pred|ztsnr|scaled_fp8|norm_final\.weight)$"
)
QUANTISED = json.dumps({"format": "float8_e4m3fn"}).ljust(64).encode()
STACK = re.compile(r"(?:\w*blocks|layers|\w+_refiner)\.(\d+)\.")


def inventory(keys: Path, name: str) -> inventories.Inventory:
    return inventories.read(keys / "base" / f"{name}.json")


def file_of(content: Mapping[str, Any], path: Path) -> Path:
    dtypes = content.get("dtypes") or dict.fromkeys(content["tensors"], content.get("dtype") or "F16")
    said = {key: QUANTISED for key in content["tensors"] if key.endswith(".comfy_quant")}
    return sparse_file(path, content["tensors"], dtypes, contents=said)


def parts(checkpoint: Checkpoint) -> dict[str, int]:
    return dict(Counter(target.module.component for target in checkpoint.places))


def unreached(checkpoint: Checkpoint) -> list[str]:
    """Tensors of the file that no patch could reach, without what a checkpoint holds besides."""
    reached = {place.key for place in checkpoint.places.values()}
    for layer in checkpoint.quantised.layers.values():
        reached |= {*layer.keys.values(), *layer.notes}
    return [key for key in checkpoint.tensors if key not in reached and not BESIDES.search(key)]


def misplaced(checkpoint: Checkpoint) -> list[str]:
    """Parameters that have another shape at their place than in the architecture."""
    family = checkpoint.architecture
    return [str(target) for target in checkpoint.places if checkpoint.shape_of(target) != family.shape(target)]


def test_the_table_names_every_inventory(keys: Path) -> None:
    assert {path.stem for path in (keys / "base").glob("*.json")} == WHOLE.keys() | SUBSETS.keys() | OTHERS


@pytest.mark.parametrize("name", WHOLE)
def test_every_parameter_of_a_real_checkpoint_is_reached(name: str, keys: Path, tmp_path: Path) -> None:
    content = inventory(keys, name)
    checkpoint = open_checkpoint(file_of(content, tmp_path / "model.safetensors"))

    assert (checkpoint.architecture.name, parts(checkpoint)) == WHOLE[name]
    assert unreached(checkpoint) == []
    assert misplaced(checkpoint) == []
    # Nothing of the file is lost, however its tensors are put together.
    pieces = {piece.ref.name for stored in checkpoint.tensors.values() for piece in stored.pieces}
    assert pieces == content["tensors"].keys()


def whole(content: Mapping[str, Any], family: str, prefix: str) -> dict[str, Any]:
    """The inventory of a whole file: every block of a stack is like the one that is there."""
    component = ARCHITECTURES.get(family).component(DENOISER)
    assert component is not None
    numbers: dict[str, set[str]] = {}
    for path in component.modules:
        if found := STACK.search(path):
            numbers.setdefault(prefix + path[: found.start(1)], set()).add(found[1])
    tensors: dict[str, Any] = {}
    dtypes: dict[str, str] = {}
    given = content.get("dtypes") or {}
    for key, shape in content["tensors"].items():
        found = STACK.search(key)
        stem, rest = (key[: found.start(1)], key[found.end(1) :]) if found else ("", "")
        for name in [f"{stem}{number}{rest}" for number in numbers[stem]] if found else [key]:
            tensors[name] = shape
            dtypes[name] = given.get(key) or "BF16"
    return {"tensors": tensors, "dtypes": dtypes}


@pytest.mark.parametrize("name", SUBSETS)
def test_files_of_which_one_block_is_known_are_found_with_all_their_blocks(
    name: str, keys: Path, tmp_path: Path
) -> None:
    family, size, quantised = SUBSETS[name]
    content = inventory(keys, name)
    prefix = "net." if next(iter(content["tensors"])).startswith("net.") else ""
    checkpoint = open_checkpoint(file_of(whole(content, family, prefix), tmp_path / "model.safetensors"))

    assert (checkpoint.architecture.name, parts(checkpoint)) == (family, {DENOISER: size})
    assert len(checkpoint.quantised.layers) == quantised
    assert unreached(checkpoint) == []
    assert misplaced(checkpoint) == []


@pytest.mark.parametrize("name", SUBSETS)
def test_a_part_of_a_file_says_how_little_is_there(name: str, keys: Path, tmp_path: Path) -> None:
    title = ARCHITECTURES.get(SUBSETS[name][0]).title
    with pytest.raises(UnknownCheckpointError, match=rf"holds \d+ of the \d+ parameters of the denoiser of {title}"):
        open_checkpoint(file_of(inventory(keys, name), tmp_path / "model.safetensors"))


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "model."])
def test_hunyuan_video_in_the_words_of_tencent(prefix: str, keys: Path, tmp_path: Path) -> None:
    tensors = inventory(keys, "hunyuan-video__native")["tensors"]
    theirs = {prefix + hunyuan_video.original(key): shape for key, shape in tensors.items()}
    checkpoint = open_checkpoint(sparse_file(tmp_path / "model.safetensors", theirs))

    assert (checkpoint.architecture.name, parts(checkpoint)) == ("hunyuan_video", {DENOISER: 856})
    assert checkpoint.originals.keys() == theirs.keys()
    assert misplaced(checkpoint) == []


def test_quantised_weights_under_other_names_are_refused(keys: Path, tmp_path: Path) -> None:
    tensors = dict(inventory(keys, "z-image__diffusers_transformer")["tensors"])
    name = "layers.0.attention.to_q"
    content = {
        "tensors": {**tensors, f"{name}.comfy_quant": [64], f"{name}.weight_scale": []},
        "dtypes": {**dict.fromkeys(tensors, "BF16"), f"{name}.weight": "F8_E4M3", f"{name}.comfy_quant": "U8"}
        | {f"{name}.weight_scale": "F32"},
    }
    with pytest.raises(ConfigError, match=r"layers\.0\.attention\.to_q\.weight is quantised, under a name .* Z-Image"):
        open_checkpoint(file_of(content, tmp_path / "model.safetensors"))


def test_a_part_that_is_missing_under_other_names_is_named(keys: Path, tmp_path: Path) -> None:
    tensors = dict(inventory(keys, "sd3-medium__diffusers_transformer")["tensors"])
    del tensors["transformer_blocks.3.attn.to_k.weight"]
    missing = r"model\.safetensors: parts of .*joint_blocks\.3\.x_block\.attn\.qkv\.weight are missing: 2 are there"
    with pytest.raises(CorruptFileError, match=missing):
        open_checkpoint(sparse_file(tmp_path / "model.safetensors", tensors))


def test_one_of_several_files_is_no_checkpoint(keys: Path, tmp_path: Path) -> None:
    """The first third of a transformer that diffusers saved in parts."""
    tensors = inventory(keys, "z-image__diffusers_transformer")["tensors"]
    part = {key: tensors[key] for key in sorted(tensors)[: len(tensors) // 3]}
    with pytest.raises(UnknownCheckpointError, match=r"It holds \d+ of the 453 parameters of the denoiser of Z-Image"):
        open_checkpoint(sparse_file(tmp_path / "model-00001-of-00003.safetensors", part))
