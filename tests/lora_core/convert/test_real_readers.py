"""What is written is read by the programs that the formats are of: diffusers and PEFT, on the demo pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import lora_files
from lora_core import load_adapter
from lora_core.architectures import ARCHITECTURES
from lora_core.convert import convert_lora
from lora_core.stack import Adapter

DEMO = ARCHITECTURES.get("loom_demo")
CONVOLUTIONS = r"conv[12]$|conv_in$|downsamplers|conv_shortcut"
Weights = dict[tuple[str, str], torch.Tensor]


@pytest.fixture
def pipeline(repository: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(
        repository / "demo" / "model", safety_checker=None, feature_extractor=None, local_files_only=True
    ).to(torch.float32)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """kohya's names, three ranks, an alpha that is no rank, and modules without one."""
    attention = lora_files.factors("loom_demo", seed=1, rank=4, size=0.1)
    convolutions = lora_files.factors("loom_demo", seed=2, rank=6, size=0.1, modules=CONVOLUTIONS)
    time = lora_files.factors("loom_demo", seed=3, rank=2, size=0.1, modules="time_embedding")
    tensors = lora_files.kohya(attention, 3.0) | lora_files.kohya(convolutions) | lora_files.kohya(time, 1.0)
    return lora_files.save(tmp_path / "mixed.safetensors", tensors, ss_network_dim="4")


@pytest.fixture
def dora(tmp_path: Path) -> Path:
    """DoRA in all modules, magnitudes per output, of linear layers and convolutions."""
    parts = lora_files.factors("loom_demo", seed=4, rank=4, size=0.2, components=("denoiser",))
    parts += lora_files.factors("loom_demo", seed=5, rank=3, size=0.2, modules=CONVOLUTIONS, components=("denoiser",))
    return lora_files.save(tmp_path / "dora.safetensors", lora_files.with_dora(lora_files.kohya(parts, 2.0), 6))


def model(pipeline: Any, component: str) -> Any:
    return pipeline.unet if component == "denoiser" else pipeline.text_encoder


def plain(pipeline: Any, adapter: Adapter) -> Weights:
    """(component, path) -> weight of every module that the adapter changes, before it."""
    weights: Weights = {}
    for target, _ in adapter.deltas:
        module = DEMO.module(target.module)
        assert module is not None
        component = target.module.component
        layer = model(pipeline, component).get_submodule(name_in(pipeline, component, module.diffusers))
        weights[component, module.diffusers] = layer.weight.detach().clone()
    return weights


def name_in(pipeline: Any, component: str, path: str) -> str:
    """transformers 5 has no ``text_model`` in a CLIPTextModel."""
    modules = dict(model(pipeline, component).named_modules())
    return path if path in modules else path.removeprefix("text_model.")


def expected(adapter: Adapter, before: Mapping[tuple[str, str], torch.Tensor]) -> Weights:
    """What our own engine makes of the weights."""
    after: Weights = {}
    for target, delta in adapter.deltas:
        module = DEMO.module(target.module)
        assert module is not None
        place = target.module.component, module.diffusers
        after[place] = delta.apply(before[place], 1.0)
    return after


def merged(pipeline: Any, component: str) -> Weights:
    """What PEFT makes of them."""
    found: Weights = {}
    part = DEMO.component(component)
    assert part is not None
    own = [module.diffusers for module in part.modules.values()]
    paths = {name_in(pipeline, component, path): path for path in own}
    for name, layer in model(pipeline, component).named_modules():
        if hasattr(layer, "get_delta_weight"):
            layer.merge(safe_merge=True)
            name = name.removeprefix("base_model.model.")
            found[component, paths[name]] = layer.get_base_layer().weight.detach()
    return found


def assert_same(found: Weights, wanted: Weights) -> None:
    assert set(found) ^ set(wanted) == set()
    for place, weight in wanted.items():
        # products of fp16 factors: the new ones are rounded to fp16 once more where a scale is worked in (2^-11)
        torch.testing.assert_close(
            found[place], weight, rtol=1e-3, atol=2e-4, msg=lambda text, at=place: f"{at}: {text}"
        )


@pytest.mark.parametrize("kind", ["mixed", "dora"])
def test_diffusers_loads_what_is_written_for_it(
    pipeline: Any, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    file = request.getfixturevalue(kind)
    adapter = load_adapter(file)
    before = plain(pipeline, adapter)
    convert_lora(file, tmp_path / "new.safetensors", "diffusers")

    pipeline.load_lora_weights(str(tmp_path), weight_name="new.safetensors")

    found = merged(pipeline, "denoiser") | merged(pipeline, "text_encoder")
    assert_same(found, expected(adapter, before))


def test_diffusers_loads_kohyas_names_as_well(pipeline: Any, tmp_path: Path, mixed: Path) -> None:
    """From ComfyUI's names to kohya's, which diffusers converts on its own. (It takes kohya's DoRA of convolutions
    for magnitudes of the other side.)"""
    adapter = load_adapter(mixed)
    before = plain(pipeline, adapter)
    convert_lora(mixed, tmp_path / "between.safetensors", "comfy", dtype="fp32")
    convert_lora(tmp_path / "between.safetensors", tmp_path / "new.safetensors", "kohya")

    pipeline.load_lora_weights(str(tmp_path), weight_name="new.safetensors")

    found = merged(pipeline, "denoiser") | merged(pipeline, "text_encoder")
    assert_same(found, expected(adapter, before))


@pytest.mark.parametrize("kind", ["mixed", "dora"])
def test_peft_loads_the_folders_that_are_written_for_it(
    pipeline: Any, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    from peft import PeftModel

    file = request.getfixturevalue(kind)
    adapter = load_adapter(file)
    before = plain(pipeline, adapter)
    report = convert_lora(file, tmp_path / "folder", "peft")

    for path in report.files:
        component = "text_encoder" if path.parent.name == "text_encoder" else "denoiser"
        wrapped = PeftModel.from_pretrained(model(pipeline, component), str(path.parent))
        setattr(pipeline, {"denoiser": "unet"}.get(component, component), wrapped)
    found: Weights = {}
    for path in report.files:
        found |= merged(pipeline, "text_encoder" if path.parent.name == "text_encoder" else "denoiser")
    assert_same(found, expected(adapter, before))


def test_a_peft_folder_of_loha(pipeline: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for part in lora_files.factors("loom_demo", seed=1, modules=r"attn1.to_q$|conv1$", components=("denoiser",)):
        out, inner = part.up.shape[0], part.down[0].numel()
        for role, shape in {
            "hada_w1_a": (out, 2), "hada_w1_b": (2, inner), "hada_w2_a": (out, 2), "hada_w2_b": (2, inner),
        }.items():  # fmt: skip
            tensors[f"{part.kohya}.{role}"] = torch.randn(shape, generator=generator) / 4
        tensors[f"{part.kohya}.alpha"] = torch.tensor(1.0 if "conv" in part.kohya else 2.0)
    adapter = load_adapter(lora_files.save(tmp_path / "loha.safetensors", tensors))
    before = plain(pipeline, adapter)
    convert_lora(adapter, tmp_path / "folder", "peft")

    pipeline.unet = PeftModel.from_pretrained(pipeline.unet, str(tmp_path / "folder"))

    assert json.loads((tmp_path / "folder" / "adapter_config.json").read_text())["peft_type"] == "LOHA"
    assert_same(merged(pipeline, "denoiser"), expected(adapter, before))


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")
def test_diffusers_takes_a_fused_flux_file_that_was_cut_for_it(tmp_path: Path) -> None:
    """One double and one single block of FLUX, real widths, in diffusers' own model: every delta is where it was.

    The model is without memory (``meta``); diffusers still finds every layer, its shape and its scale.
    """
    from diffusers import FluxTransformer2DModel

    width, heads = 3072, 24
    shapes = {
        "double_blocks_0_img_attn_qkv": (3 * width, width),
        "double_blocks_0_txt_mlp_0": (4 * width, width),
        "single_blocks_0_linear1": (7 * width, width),
        "single_blocks_0_linear2": (width, 5 * width),
        "final_layer_adaLN_modulation_1": (2 * width, width),
    }
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for name, (out, into) in shapes.items():
        tensors[f"lora_unet_{name}.lora_down.weight"] = torch.randn(1, into, generator=generator)
        tensors[f"lora_unet_{name}.lora_up.weight"] = torch.randn(out, 1, generator=generator)
        tensors[f"lora_unet_{name}.alpha"] = torch.tensor(0.5)
    old = lora_files.save(tmp_path / "old.safetensors", tensors)
    convert_lora(old, tmp_path / "new.safetensors", "diffusers", architecture="flux")
    with torch.device("meta"):
        model = FluxTransformer2DModel(num_layers=1, num_single_layers=1, num_attention_heads=heads)

    new = lora_files.read(tmp_path / "new.safetensors")
    model.load_lora_adapter(new, prefix="transformer")  # names and shapes have to fit; tensors stay "meta"
    found = {name: layer for name, layer in model.named_modules() if hasattr(layer, "get_delta_weight")}

    def row(name: str, start: int) -> torch.Tensor:
        """Some rows of the change in the old file."""
        up = tensors[f"lora_unet_{name}.lora_up.weight"][start : start + 8]
        return 0.5 * up @ tensors[f"lora_unet_{name}.lora_down.weight"]

    def loaded(name: str) -> torch.Tensor:
        """The first rows of the change, at the scale that diffusers gives it."""
        (scale,) = found.pop(name).scaling.values()
        up, down = (new[f"transformer.{name}.lora_{letter}.weight"] for letter in "BA")
        return scale * up[:8] @ down

    block, single = "transformer_blocks.0", "single_transformer_blocks.0"
    expected_rows = {
        f"{block}.attn.to_q": row("double_blocks_0_img_attn_qkv", 0),
        f"{block}.attn.to_k": row("double_blocks_0_img_attn_qkv", width),
        f"{block}.attn.to_v": row("double_blocks_0_img_attn_qkv", 2 * width),
        f"{block}.ff_context.net.0.proj": row("double_blocks_0_txt_mlp_0", 0),
        f"{single}.attn.to_q": row("single_blocks_0_linear1", 0),
        f"{single}.attn.to_k": row("single_blocks_0_linear1", width),
        f"{single}.attn.to_v": row("single_blocks_0_linear1", 2 * width),
        f"{single}.proj_mlp": row("single_blocks_0_linear1", 3 * width),
        f"{single}.proj_out": row("single_blocks_0_linear2", 0),
        # (shift, scale) in FLUX's own layer, (scale, shift) in diffusers'
        "norm_out.linear": row("final_layer_adaLN_modulation_1", width),
    }
    for name, rows in expected_rows.items():
        torch.testing.assert_close(loaded(name), rows, rtol=1e-6, atol=1e-6)  # the scale is rounded once
    assert found == {}
