"""A trained file does the same in a stock diffusers pipeline, in PEFT, in ComfyUI's own loader, and in ours.

"The same" is what the model predicted at the end of the training, with PEFT's layers in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import graphs
from host_harness.host import ComfyHost
from lora_core import Stack, StackEntry, Strengths, load_adapter
from lora_core.architectures import ARCHITECTURES
from lora_core.patching import apply_patch, bind
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.output import SavedLora, save_lora
from lora_core.types import DENOISER

from .conftest import Train, Trained

DEMO = ARCHITECTURES.get("loom_demo")
CAPTION = "red heart"
NOISY = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(5))
TIMESTEP = torch.tensor([600])
# Predictions are of size 1. The same fp32 factors are multiplied before or after the input, and sums differ in order.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def stock(repository: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(
        repository / "demo" / "model", safety_checker=None, feature_extractor=None, local_files_only=True
    ).to(torch.float32)


@torch.no_grad()
def predicted(pipeline: Any) -> Tensor:
    """By a pipeline's own parts, text encoder included."""
    ids = pipeline.tokenizer(CAPTION, padding="max_length", max_length=77, return_tensors="pt").input_ids
    return pipeline.unet(NOISY, TIMESTEP, pipeline.text_encoder(ids)[0]).sample


@torch.no_grad()
def at_the_end_of_training(denoiser: DiffusersDenoiser) -> Tensor:
    """With the adapters as PEFT has them."""
    sizes = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]])
    return denoiser.predict(NOISY, TIMESTEP, denoiser.encode_text([CAPTION]), sizes)


def patched_by_us(repository: Path, files: Sequence[tuple[Path, float]]) -> Tensor:
    """Our loader and our patches, on the weights of a stock pipeline."""
    pipeline = stock(repository)
    stack = Stack(tuple(StackEntry(load_adapter(file), Strengths(at, at)) for file, at in files))
    for target, patch in bind(stack, DEMO.shape, DEMO).patches.items():
        module = DEMO.module(target.module)
        assert module is not None
        model = pipeline.unet if target.module.component == DENOISER else pipeline.text_encoder
        paths = dict(model.named_modules())
        # transformers 5 has no `text_model` in a CLIPTextModel
        layer = paths.get(module.diffusers) or paths[module.diffusers.removeprefix("text_model.")]
        layer.weight.data = apply_patch(layer.weight.data, patch)
    return predicted(pipeline)


def saved_with(trained: Trained, path: Path, format: str, dtype: str = "fp32") -> SavedLora:
    deltas = trained.deltas
    return save_lora(trained.adapter, {}, path, format, dtype, deltas=deltas, weight_of=deltas.weight)


def saved(trained: Trained, path: Path, format: str, dtype: str = "fp32") -> Path:
    return saved_with(trained, path, format, dtype).path


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"targets": "all", "conv_rank": 2},
        {"start": "pissa"},
        # diffusers 0.42 with transformers 5 drops magnitudes of text encoders, and says that it drops kohya's
        {"type": "dora", "text": False, "format": "diffusers"},
    ],
)
@pytest.mark.parametrize("format", ["kohya", "diffusers"])
def test_stock_diffusers_loads_it_by_load_lora_weights(
    train: Train, denoiser: DiffusersDenoiser, repository: Path, tmp_path: Path, format: str, settings: dict[str, Any]
):
    settings = dict(settings)
    format = settings.pop("format", format)
    trained = train(size=0.05, **settings)
    wanted = at_the_end_of_training(denoiser)
    file = saved(trained, tmp_path / "cat.safetensors", format)
    pipeline = stock(repository)
    before = predicted(pipeline)

    pipeline.load_lora_weights(str(tmp_path), weight_name=file.name)

    torch.testing.assert_close(predicted(pipeline), wanted, **CLOSE)
    assert (wanted - before).abs().max() > 0.05  # it does something


@pytest.mark.parametrize("format", ["kohya", "diffusers"])
def test_two_of_them_are_blended_by_set_adapters_as_by_our_stack(
    train: Train, repository: Path, tmp_path: Path, format: str
):
    files: list[Path] = []
    for name, settings in (("cat", {"rank": 4}), ("ink", {"rank": 6, "targets": "attention+ff"})):
        trained = train(size=0.05, **settings)
        files.append(saved(trained, tmp_path / f"{name}.safetensors", format))
        trained.network.detach()
    pipeline = stock(repository)
    for file in files:
        pipeline.load_lora_weights(str(tmp_path), weight_name=file.name, adapter_name=file.stem)

    pipeline.set_adapters(["cat", "ink"], adapter_weights=[0.7, 0.3])

    blended = predicted(pipeline)
    torch.testing.assert_close(blended, patched_by_us(repository, [(files[0], 0.7), (files[1], 0.3)]), **CLOSE)
    pipeline.set_adapters(["ink"], adapter_weights=[1.0])
    alone = predicted(pipeline)
    torch.testing.assert_close(alone, patched_by_us(repository, [(files[1], 1.0)]), **CLOSE)
    assert (blended - alone).abs().max() > 0.01


def test_peft_loads_its_folders(train: Train, denoiser: DiffusersDenoiser, repository: Path, tmp_path: Path):
    from peft import PeftModel

    trained = train(size=0.05, conv_rank=2, targets="all")
    wanted = at_the_end_of_training(denoiser)
    folder = saved(trained, tmp_path / "cat", "peft")
    pipeline = stock(repository)

    pipeline.unet = PeftModel.from_pretrained(pipeline.unet, folder / "unet")
    pipeline.text_encoder = PeftModel.from_pretrained(pipeline.text_encoder, folder / "text_encoder")

    torch.testing.assert_close(predicted(pipeline), wanted, **CLOSE)


@pytest.mark.parametrize("type", ["lora", "dora", "loha", "lokr", "oft"])
@pytest.mark.parametrize("format", ["kohya", "comfy"])
def test_our_own_loader_does_the_same(
    train: Train, denoiser: DiffusersDenoiser, repository: Path, tmp_path: Path, format: str, type: str
):
    trained = train(size=0.05, type=type)
    wanted = at_the_end_of_training(denoiser)

    file = saved(trained, tmp_path / "cat.safetensors", format)

    torch.testing.assert_close(patched_by_us(repository, [(file, 1.0)]), wanted, **CLOSE)


def drawn(comfy: ComfyHost, graph: graphs.Graph) -> NDArray[np.int64]:
    (pixels,) = comfy.images(comfy.queue(graphs.demo() | graph), "picture")
    return pixels.astype(int)


# A LoHa's change is a product of four factors, so it takes larger ones to show.
@pytest.mark.parametrize(("type", "size"), [("lora", 0.05), ("dora", 0.05), ("loha", 0.2), ("lokr", 0.05)])
@pytest.mark.parametrize("format", ["kohya", "comfy"])
def test_comfyuis_own_loader_draws_the_same_as_ours(
    comfy: ComfyHost, train: Train, format: str, type: str, size: float
):
    trained = train(size=size, type=type)
    name = f"trained/{type}-{format}.safetensors"
    saved(trained, comfy.loras / name, format, "fp16")

    core, ours = drawn(comfy, graphs.chained((name, 0.8, 0.8))), drawn(comfy, graphs.loaded(name, 0.8, 0.8))

    # ComfyUI computes changes in the weights' fp16 and we in float32; a level or two of 255 is what that shows as.
    assert np.abs(core - ours).max() <= 2
    assert np.abs(core - drawn(comfy, graphs.picture())).max() > 8


def test_oft_is_for_our_loader_and_the_user_is_told(comfy: ComfyHost, train: Train):
    """ComfyUI's own knows rotations of outputs, these are of inputs: it passes them over."""
    name = "trained/oft.safetensors"
    warnings = saved_with(train(size=0.05, type="oft"), comfy.loras / name, "kohya", "fp16").warnings

    base = drawn(comfy, graphs.picture())
    assert np.array_equal(drawn(comfy, graphs.chained((name, 1.0, 1.0))), base)
    assert np.abs(drawn(comfy, graphs.loaded(name)) - base).max() > 8
    assert any("ComfyUI's own loader" in line for line in warnings)


def test_comfyui_blends_two_of_them_as_we_do(comfy: ComfyHost, train: Train):
    names: list[str] = []
    for name, settings in (("cat", {"rank": 4}), ("ink", {"rank": 6, "targets": "attention+ff"})):
        trained = train(size=0.05, **settings)
        names.append(f"trained/{name}.safetensors")
        saved(trained, comfy.loras / names[-1], "kohya", "fp16")
        trained.network.detach()
    rows = json.dumps([{"lora": name, "strength": at, "on": True} for name, at in zip(names, (0.7, 0.3), strict=True)])

    core = drawn(comfy, graphs.chained((names[0], 0.7, 0.7), (names[1], 0.3, 0.3)))

    assert np.abs(core - drawn(comfy, graphs.stacked(rows))).max() <= 2
    assert np.abs(core - drawn(comfy, graphs.loaded(names[0], 0.7, 0.7))).max() > 2
