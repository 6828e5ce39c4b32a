"""Single-file checkpoints: the same model as the folder they were made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hub_cache as hub
import tiny
from lora_core.architectures import ARCHITECTURES, Architecture
from lora_core.errors import ConfigError, CorruptFileError, ShapeMismatchError
from lora_core.train.config import ModelSection
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.diffusers_denoiser.configs import CONFIGS
from lora_core.train.diffusers_denoiser.family import architecture_of
from lora_core.train.diffusers_denoiser.libraries import library
from lora_core.train.diffusers_denoiser.parts import Parts

FAMILIES = [("tiny_sd1", tiny.TINY_SD1), ("tiny_sd2", tiny.TINY_SD2), ("tiny_sdxl", tiny.TINY_SDXL)]


@pytest.mark.parametrize(("name", "architecture"), FAMILIES)
def test_a_file_is_the_model_that_its_folder_is(
    name: str, architecture: Architecture, request: pytest.FixtureRequest, tmp_path: Path
):
    folder: Path = request.getfixturevalue(name)
    file = tiny.as_single_file(folder, architecture, tmp_path / "base.safetensors")
    whole = DiffusersDenoiser.load(ModelSection(base=str(folder)), architecture=architecture)

    single = DiffusersDenoiser.load(ModelSection(base=str(file), pipeline=str(folder)), architecture=architecture)

    assert single.vae_fingerprint == whole.vae_fingerprint
    assert single.text_fingerprint == whole.text_fingerprint
    assert single.schedule.prediction == whole.schedule.prediction
    expected, found = whole.parts["denoiser"].state_dict(), single.parts["denoiser"].state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    text, same = whole.encode_text(["a red apple"]), single.encode_text(["a red apple"])
    assert all(torch.equal(same[key], value) for key, value in text.items())


def test_the_frozen_weights_have_the_dtype_that_was_asked_for(tiny_sd1: Path, tmp_path: Path):
    file = tiny.as_single_file(tiny_sd1, tiny.TINY_SD1, tmp_path / "base.safetensors")

    section = ModelSection(base=str(file), pipeline=str(tiny_sd1), dtype="bf16")
    parts = DiffusersDenoiser.load(section, architecture=tiny.TINY_SD1).parts

    assert {p.dtype for part in parts.values() for p in part.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for part in parts.values() for p in part.parameters())


def test_a_file_says_that_it_predicts_v_up_to_pure_noise(tiny_sdxl: Path, tmp_path: Path):
    """Checkpoints of SDXL that predict v have two empty tensors, which trainers and hosts know."""
    signs = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    file = tiny.as_single_file(tiny_sdxl, tiny.TINY_SDXL, tmp_path / "v.safetensors", **signs)

    section = ModelSection(base=str(file), pipeline=str(tiny_sdxl))
    schedule = DiffusersDenoiser.load(section, architecture=tiny.TINY_SDXL).schedule

    assert schedule.prediction == "v"
    assert schedule.snr(torch.tensor([999])).item() == 0


def test_a_file_of_sd_2_does_not_say_what_it_predicts(tiny_sd2: Path, tmp_path: Path):
    file = tiny.as_single_file(tiny_sd2, tiny.TINY_SD2, tmp_path / "base.safetensors")
    configs = shutil.copytree(tiny_sd2, tmp_path / "configs")
    settings = configs / "scheduler" / "scheduler_config.json"
    settings.write_text(settings.read_text().replace('"prediction_type"', '"nothing"'))

    def load(prediction: str) -> DiffusersDenoiser:
        section = ModelSection.model_validate({"base": str(file), "pipeline": str(configs), "prediction": prediction})
        return DiffusersDenoiser.load(section, architecture=tiny.TINY_SD2)

    with pytest.raises(ConfigError, match=r"model\.prediction: the checkpoint does not say.*set v .*or epsilon"):
        load("auto")
    assert load("v").schedule.prediction == "v"


@pytest.mark.parametrize("name", list(CONFIGS))
def test_the_known_settings_make_models_of_their_family(name: str):
    """UNet, text encoders and VAE without memory: all names and shapes are the architecture's."""
    configs, row = CONFIGS[name], ARCHITECTURES.get(name)
    diffusers, transformers = library("diffusers"), library("transformers")
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel.from_config(configs.unet)
        vae = diffusers.AutoencoderKL.from_config(configs.vae)
        encoders = {
            component: transformers.CLIPTextModel(transformers.CLIPTextConfig(**settings))
            for component, settings in configs.encoders.items()
        }

    assert architecture_of(Parts(name, unet, vae, [], configs.scheduler)).name == name
    for component, model in encoders.items():
        modules = row.component(component)
        assert modules is not None
        for key, value in model.state_dict().items():
            path, _, parameter = key.rpartition(".")
            if parameter != "position_ids":
                assert modules.modules[modules.diffusers[path].path].shapes[parameter] == value.shape


def test_a_tokenizer_has_to_come_from_somewhere(tiny_sd1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tiny.as_single_file(tiny_sd1, tiny.TINY_SD1, tmp_path / "base.safetensors")
    configs = shutil.copytree(tiny_sd1, tmp_path / "configs", ignore=shutil.ignore_patterns("tokenizer"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(ConfigError, match=r"model\.pipeline: base\.safetensors has no tokenizer.*give a folder"):
        DiffusersDenoiser.load(ModelSection(base=str(file), pipeline=str(configs)), architecture=tiny.TINY_SD1)


def without(prefix: str) -> Callable[[Path], None]:
    def cut(file: Path) -> None:
        save_file({key: value for key, value in load_file(file).items() if not key.startswith(prefix)}, file)

    return cut


@pytest.mark.parametrize(
    ("prefix", "missing"),
    [
        ("vae.", "has no vae"),
        ("cond_stage_model.", "has no text_encoder"),
        ("vae.decoder.conv_in.", "no tensor for decoder.conv_in"),
    ],
)
def test_what_a_file_lacks_is_named(prefix: str, missing: str, tiny_sd1: Path, tmp_path: Path):
    file = tiny.as_single_file(tiny_sd1, tiny.TINY_SD1, tmp_path / "base.safetensors")
    without(prefix)(file)

    with pytest.raises(ConfigError, match=missing):
        DiffusersDenoiser.load(ModelSection(base=str(file), pipeline=str(tiny_sd1)), architecture=tiny.TINY_SD1)


def test_a_family_without_known_settings_needs_a_folder(tiny_sd1: Path, tmp_path: Path):
    file = tiny.as_single_file(tiny_sd1, tiny.TINY_SD1, tmp_path / "base.safetensors")

    with pytest.raises(ConfigError, match=r"model\.pipeline: .*Tiny SD 1, whose settings are not known.*unet/config"):
        DiffusersDenoiser.load(ModelSection(base=str(file)), architecture=tiny.TINY_SD1)
    with pytest.raises(ConfigError, match=r"model\.pipeline: there is no folder"):
        DiffusersDenoiser.load(ModelSection(base=str(file), pipeline="nowhere"), architecture=tiny.TINY_SD1)


def test_a_pickle_is_refused(tmp_path: Path):
    torch.save({"model.diffusion_model.out.2.weight": torch.zeros(4, 320, 3, 3)}, tmp_path / "old.ckpt")

    with pytest.raises(ConfigError, match=r"old\.ckpt is a pickle.*convert it to safetensors"):
        DiffusersDenoiser.load(ModelSection(base=str(tmp_path / "old.ckpt")))


def test_a_damaged_file_is_said_to_be(tmp_path: Path):
    (tmp_path / "base.safetensors").write_bytes(b"no tensors here, and nothing else")

    with pytest.raises(CorruptFileError, match=r"base\.safetensors"):
        DiffusersDenoiser.load(ModelSection(base=str(tmp_path / "base.safetensors")))


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
def test_another_vae_takes_the_place_of_the_bases(prefix: str, tiny_sd1: Path, tmp_path: Path):
    base = DiffusersDenoiser.load(ModelSection(base=str(tiny_sd1)), architecture=tiny.TINY_SD1)
    checkpoint = load_file(tiny.as_single_file(tiny_sd1, tiny.TINY_SD1, tmp_path / "base.safetensors"))
    own = "vae."
    changed = {key: value * 1.01 for key, value in checkpoint.items() if key.startswith(own)}
    save_file({prefix + key.removeprefix(own): value for key, value in changed.items()}, tmp_path / "vae.safetensors")

    section = ModelSection(base=str(tiny_sd1), vae=str(tmp_path / "vae.safetensors"))
    other = DiffusersDenoiser.load(section, architecture=tiny.TINY_SD1)

    assert other.vae_fingerprint != base.vae_fingerprint
    assert other.text_fingerprint == base.text_fingerprint
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    assert not torch.equal(other.encode_pictures(pixels).mean, base.encode_pictures(pixels).mean)


def test_a_vae_may_be_a_folder_or_a_pipelines(tiny_sd1: Path, tiny_sdxl: Path):
    base = DiffusersDenoiser.load(ModelSection(base=str(tiny_sdxl)), architecture=tiny.TINY_SDXL)
    found = [
        DiffusersDenoiser.load(ModelSection(base=str(tiny_sd1), vae=str(vae)), architecture=tiny.TINY_SD1)
        for vae in (tiny_sdxl, tiny_sdxl / "vae")
    ]

    assert [one.vae_fingerprint for one in found] == [base.vae_fingerprint] * 2


def test_the_vae_of_another_family_is_refused(tiny_sd1: Path, demo_base: Path):
    with pytest.raises(ShapeMismatchError, match=r"latent channels: expected 4, got 16"):
        DiffusersDenoiser.load(ModelSection(base=str(tiny_sd1), vae=str(demo_base)), architecture=tiny.TINY_SD1)
    with pytest.raises(ConfigError, match=r"model\.vae: there is no VAE in 'nowhere'"):
        DiffusersDenoiser.load(ModelSection(base=str(tiny_sd1), vae="nowhere"), architecture=tiny.TINY_SD1)


def test_the_tokenizer_of_any_pipeline_in_the_hubs_cache_will_do(
    tiny_sd2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Texts of SD 2 are filled up with "!", whatever the tokenizer in the cache was for."""
    file = tiny.as_single_file(tiny_sd2, tiny.TINY_SD2, tmp_path / "base.safetensors")
    configs = shutil.copytree(tiny_sd2, tmp_path / "configs", ignore=shutil.ignore_patterns("tokenizer"))
    settings = configs / "text_encoder" / "config.json"
    settings.write_text(settings.read_text().replace('"pad_token_id": 1023', '"pad_token_id": 0'))
    hub.cached(tmp_path / "cache", "stabilityai/stable-diffusion-2-1", {"tokenizer": tiny_sd2 / "tokenizer"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    section = ModelSection(base=str(file), pipeline=str(configs))
    loaded = DiffusersDenoiser.load(section, architecture=tiny.TINY_SD2)

    tokenizer = loaded.encoders[0].tokenizer
    assert len(tokenizer) == tiny.VOCABULARY
    assert tokenizer.pad_token_id == 0


def test_a_tokenizer_with_more_words_than_the_encoder_is_refused(tiny_sd1: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_sd1, tmp_path / "other")
    words = json.loads((folder / "tokenizer" / "vocab.json").read_text())
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(words | {"further</w>": len(words)}))

    with pytest.raises(ConfigError, match=r"1025 words in the tokenizer of the text_encoder, which has 1024"):
        DiffusersDenoiser.load(ModelSection(base=str(folder)), architecture=tiny.TINY_SD1)
