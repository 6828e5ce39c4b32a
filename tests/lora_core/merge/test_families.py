"""Merges into checkpoints of the families whose files cut matrices in several ways: the numbers, worked out by hand.

Real names and widths, few modules: the architecture is the real one without the rest of its modules, so that a file
has megabytes. In float32 a merge is ``W + scale * up @ down`` up to the last bits of a sum over 4 ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_core import Adapter, Stack, StackEntry, Strengths, map_source
from lora_core.architectures import ARCHITECTURES, Architecture, Location
from lora_core.io import TensorDict
from lora_core.merge import MergeReport, merge_to_checkpoint
from lora_core.merge.single_file import open_file
from lora_core.types import DENOISER, TEXT_ENCODER
from small_models import random

Tensors = dict[str, torch.Tensor]

RANK, STRENGTH = 4, 0.75
# Weights are below 0.5, where float32 is exact to 3e-8; the sum of four products adds a few of these.
EXACT: dict[str, Any] = {"rtol": 0.0, "atol": 5e-7}
PREFIX = "model.diffusion_model."


def few(name: str, paths: Sequence[str], component: str = DENOISER) -> Architecture:
    """The family with these modules alone."""
    row = ARCHITECTURES.get(name)
    whole = row.component(component)
    assert whole is not None
    modules = {path: whole.modules[path] for path in paths}

    def within(names: Mapping[str, Location]) -> dict[str, Location]:
        return {name: place for name, place in names.items() if all(part.path in modules for part in place.parts)}

    part = replace(whole, modules=modules, aliases=within(whole.aliases), others=within(whole.others))
    return replace(row, build=lambda: (part,))


def lora(pattern: str, layers: Mapping[str, tuple[int, int]], base: str) -> tuple[Adapter, Tensors]:
    """A LoRA on layers of (out, in) under these names, and what it adds to each at ``STRENGTH``.

    So few names are of several families, so the base is said, as it is known when a LoRA is merged.
    """
    tensors: Tensors = {}
    deltas: Tensors = {}
    for name, (out, into) in layers.items():
        down, up = random((RANK, into), len(tensors)), random((out, RANK), len(tensors) + 1)
        tensors |= {pattern.format(name, "A"): down, pattern.format(name, "B"): up}
        deltas[name] = STRENGTH * (up.double() @ down.double())
    return map_source(TensorDict(tensors, "lora.safetensors"), base), deltas


def merged(path: Path, base: Tensors, family: Architecture, adapter: Adapter, dtype: str = "same") -> Tensors:
    return merge(path, base, family, adapter, dtype)[0]


def merge(
    path: Path, base: Tensors, family: Architecture, adapter: Adapter, dtype: str = "same"
) -> tuple[Tensors, MergeReport]:
    path.mkdir(exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in base.items()}, path / "base.safetensors")
    stack = Stack((StackEntry(adapter, Strengths(STRENGTH, STRENGTH)),))
    checkpoint = open_file(path / "base.safetensors", [family])
    report = merge_to_checkpoint(checkpoint, stack, path / "merged.safetensors", dtype=dtype, strict=True)
    result = load_file(path / "merged.safetensors")
    assert result.keys() == base.keys(), "the file keeps its names"
    return result, report


def check(result: Tensors, base: Tensors, deltas: Mapping[str, torch.Tensor | None]) -> None:
    """Every tensor of the base with what is added to it, None for nothing."""
    assert deltas.keys() == base.keys()
    for key, delta in deltas.items():
        if delta is None:
            assert torch.equal(result[key], base[key]), key
        else:
            torch.testing.assert_close(result[key], (base[key].double() + delta).float(), **EXACT)


SD3_QKV, SD3_NORM = "joint_blocks.0.x_block.attn.qkv", "final_layer.adaLN_modulation.1"
SD3_WIDTH = 1536


def sd3(prefix: str = PREFIX) -> Tensors:
    return {
        f"{prefix}{SD3_QKV}.weight": random((3 * SD3_WIDTH, SD3_WIDTH), 1),
        f"{prefix}{SD3_QKV}.bias": random((3 * SD3_WIDTH,), 2),
        f"{prefix}{SD3_NORM}.weight": random((2 * SD3_WIDTH, SD3_WIDTH), 3),
        f"{prefix}{SD3_NORM}.bias": random((2 * SD3_WIDTH,), 4),
    }


def swapped(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat(tensor.chunk(2)[::-1])


def test_split_names_on_a_fused_matrix(tmp_path: Path) -> None:
    """A LoRA in diffusers' names on SD 3's own file: q and v are rows, and the norm has its halves swapped."""
    split = {f"transformer_blocks.0.attn.to_{name}": (SD3_WIDTH, SD3_WIDTH) for name in "qv"}
    adapter, added = lora(
        "transformer.{}.lora_{}.weight", split | {"norm_out.linear": (2 * SD3_WIDTH, SD3_WIDTH)}, "sd3"
    )
    base = sd3()
    q, v = (added[f"transformer_blocks.0.attn.to_{name}"] for name in "qv")

    check(
        merged(tmp_path, base, few("sd3", [SD3_QKV, SD3_NORM]), adapter),
        base,
        {
            f"{PREFIX}{SD3_QKV}.weight": torch.cat([q, torch.zeros_like(q), v]),
            f"{PREFIX}{SD3_QKV}.bias": None,
            f"{PREFIX}{SD3_NORM}.weight": swapped(added["norm_out.linear"]),
            f"{PREFIX}{SD3_NORM}.bias": None,
        },
    )


def sd3_of_diffusers() -> Tensors:
    """The same weights as diffusers has them."""
    own = sd3("")
    parts: Tensors = {}
    for parameter in ("weight", "bias"):
        rows = own[f"{SD3_QKV}.{parameter}"].chunk(3)
        parts |= {
            f"transformer_blocks.0.attn.to_{name}.{parameter}": row for name, row in zip("qkv", rows, strict=True)
        }
        parts[f"norm_out.linear.{parameter}"] = swapped(own[f"{SD3_NORM}.{parameter}"])
    return parts


def test_fused_names_on_a_file_of_split_matrices(tmp_path: Path) -> None:
    """A LoRA in SD 3's own names on a file of diffusers: the file keeps its cuts, its biases are copied."""
    layers = {SD3_QKV: (3 * SD3_WIDTH, SD3_WIDTH), SD3_NORM: (2 * SD3_WIDTH, SD3_WIDTH)}
    adapter, added = lora("diffusion_model.{}.lora_{}.weight", layers, "sd3")
    base = sd3_of_diffusers()
    result, report = merge(tmp_path, base, few("sd3", [SD3_QKV, SD3_NORM]), adapter)
    rows = zip("qkv", added[SD3_QKV].chunk(3), strict=True)

    check(
        result,
        base,
        {f"transformer_blocks.0.attn.to_{name}.weight": row for name, row in rows}
        | {"norm_out.linear.weight": swapped(added[SD3_NORM])}
        | {key: None for key in base if key.endswith(".bias")},
    )
    assert report.tensors == len(base)


def test_both_ways_of_cutting_make_the_same_numbers(tmp_path: Path) -> None:
    """To the last bit: the parts of a cut matrix are computed as the whole."""
    adapter, _ = lora("diffusion_model.{}.lora_{}.weight", {SD3_QKV: (3 * SD3_WIDTH, SD3_WIDTH)}, "sd3")
    family = few("sd3", [SD3_QKV, SD3_NORM])
    whole = merged(tmp_path, sd3(), family, adapter, dtype="bf16")[f"{PREFIX}{SD3_QKV}.weight"]
    split = merged(tmp_path / "split", sd3_of_diffusers(), family, adapter, dtype="bf16")
    parts = [split[f"transformer_blocks.0.attn.to_{name}.weight"] for name in "qkv"]

    assert torch.equal(torch.cat(parts), whole)
    assert {tensor.dtype for tensor in split.values()} == {torch.bfloat16}


def test_parts_of_several_dtypes_are_rounded_each_to_its_own(tmp_path: Path) -> None:
    adapter, added = lora("diffusion_model.{}.lora_{}.weight", {SD3_QKV: (3 * SD3_WIDTH, SD3_WIDTH)}, "sd3")
    base = sd3_of_diffusers()
    names = [f"transformer_blocks.0.attn.to_{name}.weight" for name in "qkv"]
    kinds = [torch.float32, torch.float16, torch.bfloat16]
    base |= {name: base[name].to(kind) for name, kind in zip(names, kinds, strict=True)}
    result = merged(tmp_path, base, few("sd3", [SD3_QKV, SD3_NORM]), adapter)

    for name, kind, delta in zip(names, kinds, added[SD3_QKV].chunk(3), strict=True):
        assert result[name].dtype == kind
        # One rounding: half a step of the dtype, for numbers below 0.5.
        step = torch.finfo(kind).eps / 4
        torch.testing.assert_close(result[name].double(), base[name].double() + delta, rtol=0, atol=step / 2 + 5e-7)


def test_the_first_layer_of_a_single_block_of_flux(tmp_path: Path) -> None:
    """q, k, v and the feed-forward in one matrix; a LoRA has them apart."""
    width, mlp, path = 3072, 12288, "single_blocks.0.linear1"
    stem = "single_transformer_blocks.0."
    names = [f"{stem}attn.to_k", f"{stem}proj_mlp"]
    adapter, added = lora(
        "transformer.{}.lora_{}.weight",
        {names[0]: (width, width), names[1]: (mlp, width), "x_embedder": (width, 64)},
        "flux",
    )
    base = {
        f"{path}.weight": random((3 * width + mlp, width), 1).half(),
        f"{path}.bias": random((3 * width + mlp,), 2).half(),
        "img_in.weight": random((width, 64), 3).half(),
        "img_in.bias": random((width,), 4).half(),
    }
    result = merged(tmp_path, base, few("flux", [path, "img_in"]), adapter)

    zeros = torch.zeros(width, width, dtype=torch.float64)
    expected = base[f"{path}.weight"].double() + torch.cat([zeros, added[names[0]], zeros, added[names[1]]])
    assert torch.equal(result[f"{path}.weight"][:width], base[f"{path}.weight"][:width])
    # Half a step of fp16 for numbers below 0.5.
    torch.testing.assert_close(result[f"{path}.weight"].double(), expected, rtol=0, atol=2**-12 / 2 + 5e-7)
    assert torch.equal(result[f"{path}.bias"], base[f"{path}.bias"])


def test_a_fused_name_on_modules_that_are_apart(tmp_path: Path) -> None:
    """Qwen-Image has q, k and v apart; a LoRA that was trained after ``fuse_qkv_projections`` has one matrix."""
    width, stem = 3072, "transformer_blocks.0.attn."
    adapter, added = lora("transformer.{}.lora_{}.weight", {f"{stem}to_qkv": (3 * width, width)}, "qwen_image")
    paths = [f"{stem}to_{name}" for name in "qkv"]
    base = {f"{path}.weight": random((width, width), seed) for seed, path in enumerate(paths)}
    base |= {f"{path}.bias": random((width,), 9) for path in paths}
    result = merged(tmp_path, base, few("qwen_image", paths), adapter)

    rows = {f"{path}.weight": row for path, row in zip(paths, added[f"{stem}to_qkv"].chunk(3), strict=True)}
    check(result, base, rows | {f"{path}.bias": None for path in paths})


def test_a_file_of_fused_matrices_where_the_model_has_them_apart(tmp_path: Path) -> None:
    """A Qwen-Image transformer that was saved after ``fuse_qkv_projections``: one tensor of the file, three modules."""
    width, stem = 3072, "transformer_blocks.0.attn."
    adapter, added = lora("transformer.{}.lora_{}.weight", {f"{stem}to_k": (width, width)}, "qwen_image")
    base = {
        f"{stem}to_qkv.weight": random((3 * width, width), 1),
        f"{stem}to_qkv.bias": random((3 * width,), 2),
    }
    result = merged(tmp_path, base, few("qwen_image", [f"{stem}to_{name}" for name in "qkv"]), adapter)

    zeros = torch.zeros(width, width, dtype=torch.float64)
    weight = torch.cat([zeros, added[f"{stem}to_k"], zeros])
    check(result, base, {f"{stem}to_qkv.weight": weight, f"{stem}to_qkv.bias": None})


def test_unequal_parts(tmp_path: Path) -> None:
    """Lumina 2 has fewer heads for keys and values: 2304 rows of q, 768 of k and of v."""
    width, rows, path = 2304, {"to_q": 2304, "to_k": 768, "to_v": 768}, "layers.3.attention.qkv"
    adapter, added = lora("diffusion_model.{}.lora_{}.weight", {path: (3840, width)}, "lumina2")
    base = {f"layers.3.attn.{name}.weight": random((out, width), out) for name, out in rows.items()}
    result = merged(tmp_path, base, few("lumina2", [path]), adapter)

    parts = added[path].split([*rows.values()])
    check(result, base, dict(zip(base, parts, strict=True)))


def test_the_words_of_tencent(tmp_path: Path) -> None:
    """HunyuanVideo as Tencent published it, a LoRA in ComfyUI's names; the file keeps Tencent's."""
    path, theirs = "double_blocks.0.img_attn.proj", "double_blocks.0.img_attn_proj"
    adapter, added = lora("diffusion_model.{}.lora_{}.weight", {path: (3072, 3072)}, "hunyuan_video")
    base = {f"{theirs}.weight": random((3072, 3072), 1), f"{theirs}.bias": random((3072,), 2)}
    result = merged(tmp_path, base, few("hunyuan_video", [path]), adapter)
    check(result, base, {f"{theirs}.weight": added[path], f"{theirs}.bias": None})


def test_parameters_of_blocks_under_diffusers_name(tmp_path: Path) -> None:
    """Wan's ``blocks.0.modulation`` is ``blocks.0.scale_shift_table``: kept, beside a patched layer."""
    paths = ["blocks.0", "blocks.0.self_attn.q"]
    adapter, added = lora("diffusion_model.{}.lora_{}.weight", {paths[1]: (1536, 1536)}, "wan21_t2v_1_3b")
    base = {
        "blocks.0.scale_shift_table": random((1, 6, 1536), 1),
        "blocks.0.attn1.to_q.weight": random((1536, 1536), 2),
        "blocks.0.attn1.to_q.bias": random((1536,), 3),
    }
    result = merged(tmp_path, base, few("wan21_t2v_1_3b", paths), adapter)
    weights = dict.fromkeys(base) | {"blocks.0.attn1.to_q.weight": added[paths[1]]}
    check(result, base, weights)


def test_a_layer_with_more_inputs_in_a_file_of_other_names(tmp_path: Path) -> None:
    """Black Forest Labs' control LoRAs double the inputs of FLUX.1's first layer; the file has diffusers' names."""
    adapter, added = lora("{}.lora_{}.weight", {"img_in": (3072, 128)}, "flux")
    base = {"x_embedder.weight": random((3072, 64), 1), "x_embedder.bias": random((3072,), 2)}
    result = merged(tmp_path, base, few("flux", ["img_in"]), adapter)

    wide = torch.cat([base["x_embedder.weight"], torch.zeros(3072, 64)], dim=1)
    torch.testing.assert_close(result["x_embedder.weight"], (wide.double() + added["img_in"]).float(), **EXACT)
    assert torch.equal(result["x_embedder.bias"], base["x_embedder.bias"])


TEXT = "text_model.encoder.layers.0.self_attn."
OPEN_CLIP = "cond_stage_model.model.transformer.resblocks.0.attn."


def test_the_text_encoder_of_sd_2(tmp_path: Path) -> None:
    """open_clip's ``in_proj`` is q, k and v; LoRAs have transformers' names."""
    width, paths = 1024, [f"{TEXT}{name}_proj" for name in ("q", "k", "v", "out")]
    names = {path: "lora_te_" + path.replace(".", "_") for path in paths}
    tensors: Tensors = {}
    added: Tensors = {}
    for path in (paths[0], paths[2], paths[3]):
        down, up = random((RANK, width), len(tensors)), random((width, RANK), len(tensors) + 1)
        tensors |= {f"{names[path]}.lora_down.weight": down, f"{names[path]}.lora_up.weight": up}
        tensors[f"{names[path]}.alpha"] = torch.tensor(2.0)
        added[path] = STRENGTH * (2.0 / RANK) * (up.double() @ down.double())
    base = {
        f"{OPEN_CLIP}in_proj_weight": random((3 * width, width), 20),
        f"{OPEN_CLIP}in_proj_bias": random((3 * width,), 21),
        f"{OPEN_CLIP}out_proj.weight": random((width, width), 22),
        f"{OPEN_CLIP}out_proj.bias": random((width,), 23),
    }
    adapter = map_source(TensorDict(tensors, "lora.safetensors"), "sd21")
    result = merged(tmp_path, base, few("sd21", paths, TEXT_ENCODER), adapter)

    q, v = added[paths[0]], added[paths[2]]
    check(
        result,
        base,
        {
            f"{OPEN_CLIP}in_proj_weight": torch.cat([q, torch.zeros_like(q), v]),
            f"{OPEN_CLIP}in_proj_bias": None,
            f"{OPEN_CLIP}out_proj.weight": added[paths[3]],
            f"{OPEN_CLIP}out_proj.bias": None,
        },
    )


@pytest.mark.parametrize("dtype", ["fp16", "fp8"])
def test_another_dtype_of_a_file_of_other_names(dtype: str, tmp_path: Path) -> None:
    """What no patch changes is cast too, tensor by tensor; fp8 leaves what is small in fp16."""
    adapter, _ = lora("diffusion_model.{}.lora_{}.weight", {SD3_QKV: (3 * SD3_WIDTH, SD3_WIDTH)}, "sd3")
    base = sd3_of_diffusers()
    result = merged(tmp_path, base, few("sd3", [SD3_QKV, SD3_NORM]), adapter, dtype=dtype)

    wide = torch.float16 if dtype == "fp16" else torch.float8_e4m3fn
    for key, tensor in base.items():
        kind = wide if tensor.dim() == 2 else torch.float16
        assert result[key].dtype == kind
        if "to_" not in key or key.endswith("bias"):
            assert torch.equal(result[key].view(torch.uint8), tensor.to(kind).view(torch.uint8)), key
