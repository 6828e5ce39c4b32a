"""Which family a model's file is of, and which LoRAs fit it: from files of real names and shapes, without data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import lora_files
from lora_core import Adapter, load_adapter
from lora_core import model_family as module
from lora_core.architectures import ARCHITECTURES
from lora_core.errors import CorruptFileError, UnknownCheckpointError
from lora_core.model_family import ModelFit, model_family, model_fit
from lora_core.types import Shape
from sparse_files import sparse_file

ROOT = Path(__file__).resolve().parents[2]


def checkpoint(path: Path, family: str, *components: str, **other: Shape) -> Path:
    """A file with all parameters of some components, under the names of a single-file checkpoint."""
    shapes: dict[str, Shape] = {}
    for component in ARCHITECTURES.get(family).components:
        for name, one in component.modules.items() if component.name in components else ():
            for parameter, shape in one.shapes.items():
                place = component.place(name, parameter)
                if place.slice is None:
                    shapes[place.key] = shape[::-1] if place.transposed else shape
    return sparse_file(path, shapes | other)


def lora(folder: Path, family: str, modules: str = lora_files.ATTENTION, **extra: torch.Tensor) -> Adapter:
    tensors = lora_files.kohya(lora_files.factors(family, seed=1, rank=1, modules=modules)) | extra
    return load_adapter(lora_files.save(folder / f"{family}_{len(extra)}.safetensors", tensors))


def test_a_lora_of_the_family_fits(tmp_path: Path) -> None:
    model = model_family(checkpoint(tmp_path / "m.safetensors", "sd15", "denoiser", "text_encoder"))
    assert model.architecture.name == "sd15"
    assert dict(model.differs) == {}
    adapter = lora(tmp_path, "sd15", lora_files.TRANSFORMERS)
    assert model_fit(adapter, model) == ModelFit(264, 264)


def test_text_encoders_in_other_files_are_taken_for_the_familys(tmp_path: Path) -> None:
    model = model_family(checkpoint(tmp_path / "m.safetensors", "sd15", "denoiser"))
    assert model_fit(lora(tmp_path, "sd15", lora_files.TRANSFORMERS), model).reason == ""


def test_a_lora_of_another_family_says_what_it_was_made_for(tmp_path: Path) -> None:
    model = model_family(checkpoint(tmp_path / "m.safetensors", "sd15", "denoiser"))
    fit = model_fit(lora(tmp_path, "loom_demo"), model)
    assert fit.reason == "made for Loom Demo; the model is SD 1.5"
    assert fit.matched < fit.total


def test_what_is_left_over_is_said(tmp_path: Path) -> None:
    model = model_family(checkpoint(tmp_path / "m.safetensors", "sd15", "denoiser"))
    stray = {f"lora_unet_no_such_block.lora_{side}.weight": torch.ones(1, 1) for side in ("up", "down")}
    adapter = lora(tmp_path, "sd15", **stray)
    fit = model_fit(adapter, model)
    assert fit.reason == "128 of 129 modules fit: SD 1.5 has no module lora_unet_no_such_block"


def test_the_shapes_of_the_file_decide(tmp_path: Path) -> None:
    key = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    model = model_family(checkpoint(tmp_path / "m.safetensors", "sd15", "denoiser", **{key: (1280, 1024)}))
    ((target, shape),) = model.differs.items()
    assert (target.module.path, shape) == ("middle_block.1.transformer_blocks.0.attn2.to_k", (1280, 1024))
    fit = model_fit(lora(tmp_path, "sd15"), model)
    assert (fit.matched, fit.total) == (127, 128)
    assert fit.reason.endswith("has the shape [1280, 768] in the file and [1280, 1024] in the model")


def test_a_variant_takes_its_familys_loras(tmp_path: Path) -> None:
    model = model_family(checkpoint(tmp_path / "m.safetensors", "sd15_inpaint", "denoiser"))
    assert model.architecture.name == "sd15_inpaint"
    assert model_fit(lora(tmp_path, "sd15"), model).reason == ""


def test_the_demos_folder_and_loras() -> None:
    model = model_family(ROOT / "demo" / "model")
    for path in (ROOT / "demo" / "loras").glob("*.safetensors"):
        assert model_fit(load_adapter(path), model).reason == ""


def test_a_text_encoder_alone_does_not_tell_the_model(tmp_path: Path) -> None:
    stranger = checkpoint(tmp_path / "m.safetensors", "sd15", "text_encoder", **{"blocks.0.weight": (8, 8)})
    with pytest.raises(UnknownCheckpointError):
        model_family(stranger)


def test_other_files_are_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "flux-q4.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(CorruptFileError, match=r"what is in a \.gguf file is not known beforehand"):
        model_family(path)
    with pytest.raises(FileNotFoundError):
        model_family(tmp_path / "gone.safetensors")


def test_a_file_is_looked_at_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sparse_file(tmp_path / "m.safetensors", {"a": (2, 2)})
    opened: list[Path] = []

    def watched(place: Path) -> None:
        opened.append(place)
        raise UnknownCheckpointError("m", "a", [])

    monkeypatch.setattr(module, "open_checkpoint", watched)
    for _ in range(3):
        with pytest.raises(UnknownCheckpointError):
            model_family(path)
    assert len(opened) == 1
    os.utime(path, ns=(1, 1))
    with pytest.raises(UnknownCheckpointError):
        model_family(path)
    assert len(opened) == 2
