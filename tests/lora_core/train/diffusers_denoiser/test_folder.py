"""Folders of pipelines: what is wrong with one is said in a line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from lora_core.errors import ConfigError, CorruptFileError, MissingExtraError, UnknownCheckpointError
from lora_core.train.config import ModelSection
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.diffusers_denoiser.libraries import library


@pytest.fixture
def folder(tiny_sd1: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_sd1, tmp_path / "base")


def load(folder: Path, **settings: str) -> DiffusersDenoiser:
    section = ModelSection.model_validate({"base": str(folder), **settings})
    return DiffusersDenoiser.load(section, architecture=tiny.TINY_SD1)


def change(path: Path, **settings: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda folder: remove(folder / "model_index.json"),
            "base has no model_index.json: it is no diffusers pipeline",
        ),
        (lambda folder: remove(folder / "vae"), "base has no folder 'vae'"),
        (lambda folder: remove(folder / "tokenizer" / "vocab.json"), "has no vocab.json and merges.txt"),
        (
            lambda folder: remove(folder / "scheduler" / "scheduler_config.json"),
            "has no scheduler/scheduler_config.json",
        ),
        (
            lambda folder: change(folder / "model_index.json", text_encoder=["transformers", "T5EncoderModel"]),
            "base has a text encoder T5EncoderModel",
        ),
        (
            lambda folder: change(folder / "model_index.json", unet=[None, None], _class_name="FluxPipeline"),
            "base is a FluxPipeline without a UNet2DConditionModel",
        ),
        (
            lambda folder: change(folder / "scheduler" / "scheduler_config.json", prediction_type="sample"),
            "model.prediction: the scheduler says 'sample', which cannot be trained",
        ),
    ],
)
def test_what_is_missing_is_named(damage: Callable[[Path], None], said: str, folder: Path):
    damage(folder)

    with pytest.raises(ConfigError, match=said):
        load(folder)


WEIGHTS = ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]


@pytest.mark.parametrize("part", WEIGHTS)
def test_damaged_weights_are_said_to_be(part: str, folder: Path):
    (folder / part).write_bytes((folder / part).read_bytes()[:1000])

    with pytest.raises(CorruptFileError, match=part.split("/")[1]):
        load(folder)


@pytest.mark.parametrize("part", WEIGHTS)
def test_weights_that_lack_a_parameter_are_not_filled_with_random_numbers(part: str, folder: Path):
    state = load_file(folder / part)
    del state[min(state)]
    save_file(state, folder / part, metadata={"format": "pt"})

    with pytest.raises(CorruptFileError, match=rf"{part.split('/')[0]}: (has no weights for 1 param|cannot be loaded)"):
        load(folder)


def test_damaged_settings_are_said_to_be(folder: Path):
    (folder / "model_index.json").write_text("{")

    with pytest.raises(CorruptFileError, match=r"model_index\.json: cannot be read"):
        load(folder)


def test_an_unknown_unet_is_named(folder: Path):
    with pytest.raises(UnknownCheckpointError, match="other names or shapes than SD 1, SD 2 and SDXL"):
        DiffusersDenoiser.load(ModelSection(base=str(folder)))


def test_a_model_for_inpainting_is_refused(folder: Path):
    """Five of its nine channels are a mask and a picture, which nothing here gives."""
    change(folder / "unet" / "config.json", in_channels=9)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["conv_in.weight"] = torch.zeros(tiny.WIDTH, 9, 3, 3)
    save_file(state, weights, metadata={"format": "pt"})

    with pytest.raises(ConfigError, match="base takes 9 channels, of which 4 are noise: an inpainting or editing"):
        DiffusersDenoiser.load(ModelSection(base=str(folder)))


def test_weights_saved_in_another_dtype_than_the_settings_say(folder: Path):
    """transformers 5 would take the settings' dtype, and lose digits of the weights."""
    change(folder / "text_encoder" / "config.json", dtype="float16", torch_dtype="float16")
    saved = load_file(folder / "text_encoder" / "model.safetensors")

    state = load(folder).parts["text_encoder"].state_dict()

    name = "embeddings.token_embedding.weight"
    found = next(value for key, value in state.items() if key.endswith(name))
    assert torch.equal(found, next(value for key, value in saved.items() if key.endswith(name)))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)

    with pytest.raises(MissingExtraError, match=r"needs the package 'diffusers'.*\[train\]"):
        library("diffusers")


def test_progress_bars_of_the_libraries_stay_as_they_were(folder: Path, capfd: pytest.CaptureFixture[str]):
    logs = [library(f"{name}.utils.logging") for name in ("diffusers", "transformers")]
    before = [log.is_progress_bar_enabled() for log in logs]

    load(folder)

    assert [log.is_progress_bar_enabled() for log in logs] == before
    assert "%|" not in capfd.readouterr().err
