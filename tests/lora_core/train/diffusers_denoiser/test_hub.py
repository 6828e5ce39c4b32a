"""Pipelines of the hub: from its cache without network, which files are wanted, and what is said when there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tiny
from hub_cache import cached
from lora_core.errors import ConfigError
from lora_core.train.config import ModelSection
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.diffusers_denoiser.hub import is_whole, wanted_files

NAME = "someone/tiny"
# As in stable-diffusion-v1-5's repository, shortened.
FILES = [
    *("README.md", "model_index.json", "v1-5-pruned.safetensors"),
    *("feature_extractor/preprocessor_config.json", "safety_checker/model.safetensors"),
    *("scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"),
    *("text_encoder/config.json", "text_encoder/model.safetensors", "text_encoder/model.fp16.safetensors"),
    *("text_encoder/pytorch_model.bin", "text_encoder/pytorch_model.fp16.bin"),
    *("unet/config.json", "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.bin"),
    *("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors"),
    "unet/diffusion_pytorch_model.fp16.safetensors",
    *("vae/config.json", "vae/diffusion_pytorch_model.bin"),
]
SETTINGS = {
    *("model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"),
    *("text_encoder/config.json", "unet/config.json", "vae/config.json"),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def test_a_pipeline_in_the_cache_needs_no_network(cache: Path, tiny_sd1: Path):
    cached(cache, NAME, {path.name: path for path in tiny_sd1.iterdir()})
    folder = DiffusersDenoiser.load(ModelSection(base=str(tiny_sd1)), architecture=tiny.TINY_SD1)

    denoiser = DiffusersDenoiser.load(ModelSection(base=NAME), architecture=tiny.TINY_SD1)

    assert denoiser.text_fingerprint == folder.text_fingerprint


def test_weights_that_are_there_in_fp16_alone_will_do(cache: Path, tiny_sd1: Path):
    snapshot = cached(cache, NAME, {path.name: path for path in tiny_sd1.iterdir()})
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        (snapshot / part / f"{stem}.safetensors").rename(snapshot / part / f"{stem}.fp16.safetensors")

    denoiser = DiffusersDenoiser.load(ModelSection(base=NAME), architecture=tiny.TINY_SD1)

    assert denoiser.parts["denoiser"].state_dict()


@pytest.mark.parametrize("missing", ["unet/diffusion_pytorch_model.safetensors", "vae/config.json", "tokenizer"])
def test_half_a_pipeline_in_the_cache_is_not_taken(missing: str, cache: Path, tiny_sd1: Path):
    snapshot = cached(cache, NAME, {path.name: path for path in tiny_sd1.iterdir()})
    (shutil.rmtree if (snapshot / missing).is_dir() else Path.unlink)(snapshot / missing)

    with pytest.raises(ConfigError, match=r"model\.base: 'someone/tiny' is no folder or file here, is not whole in"):
        DiffusersDenoiser.load(ModelSection(base=NAME), architecture=tiny.TINY_SD1)


def test_all_pieces_of_large_weights_have_to_be_there(tiny_sd1: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_sd1, tmp_path / "pieces")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(folder / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors")
    pieces = {name: f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i, name in ((1, "a"), (2, "b"))}
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": pieces}))

    assert is_whole(tiny_sd1)
    assert not is_whole(folder)
    assert not is_whole(tmp_path)


@pytest.mark.parametrize("name", ["someone/unknown", "some one/../x"])
def test_what_is_nowhere_is_said_to_be(name: str, cache: Path):
    with pytest.raises(ConfigError, match=r"model\.base: .*(cannot be downloaded|there is no file or folder)"):
        DiffusersDenoiser.load(ModelSection(base=name))


def test_a_hub_that_does_not_answer_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Online, as far as anyone knows, and nobody is there: port 9 throws away what it gets, where it is open at all."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(ConfigError, match=r"cannot be downloaded \(Connect"):
        DiffusersDenoiser.load(ModelSection(base="someone/unknown"))
    assert "Retrying" not in caplog.text


@pytest.mark.parametrize("name", ["nowhere", "./nowhere/x", "/nowhere/x", "a/b/c"])
def test_a_path_is_not_asked_for_at_the_hub(name: str):
    with pytest.raises(ConfigError, match=r"model\.base: there is no file or folder"):
        DiffusersDenoiser.load(ModelSection(base=name))


def test_each_part_is_downloaded_once_in_full():
    assert set(wanted_files(FILES, half=False)) == SETTINGS | {
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.bin",
    }


def test_or_in_half_where_that_will_do():
    assert set(wanted_files(FILES, half=True)) == SETTINGS | {
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.bin",
    }


def test_the_pieces_of_large_weights_are_wanted_with_their_index():
    pieces = ["unet/config.json", *(f"unet/diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2))]
    index = "unet/diffusion_pytorch_model.safetensors.index.json"

    assert set(wanted_files([*pieces, index, "unet/diffusion_pytorch_model.bin"], half=False)) == {
        *("model_index.json", *pieces, index)
    }
