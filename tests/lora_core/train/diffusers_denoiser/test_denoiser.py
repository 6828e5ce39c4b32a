"""``DiffusersDenoiser`` against diffusers' own pipelines: the same latents, text, predictions and pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import tiny
from attached import attach, gradients
from lora_core.architectures import Architecture
from lora_core.errors import ConfigError
from lora_core.train.config import ModelSection
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.diffusers_denoiser.libraries import library

FAMILIES = {"tiny_sd1": tiny.TINY_SD1, "tiny_sd2": tiny.TINY_SD2, "tiny_sdxl": tiny.TINY_SDXL}
CAPTIONS = ["a red apple", ""]
SIZES = torch.tensor([[64.0, 48, 3, 5, 64, 64], [96, 64, 0, 0, 64, 64]])


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> tuple[Path, Architecture]:
    return request.getfixturevalue(request.param), FAMILIES[request.param]


def load(folder: Path, architecture: Architecture | None = None, **settings: Any) -> DiffusersDenoiser:
    options = {name: settings.pop(name) for name in ("checkpointing", "channels_last", "attention") if name in settings}
    section = ModelSection.model_validate({"base": str(folder), **settings})
    return DiffusersDenoiser.load(section, architecture=architecture, **options)


def stock(folder: Path) -> Any:
    pipeline = library("diffusers").DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pixels(count: int = 2, side: int = 64) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(4)) * 2 - 1


def noise(count: int = 2) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(6))


def predict(denoiser: DiffusersDenoiser) -> Tensor:
    return denoiser.predict(noise(), torch.tensor([3, 900]), denoiser.encode_text(CAPTIONS), SIZES)


def test_the_demo_base_is_of_a_known_family(demo_base: Path):
    denoiser = load(demo_base)

    assert denoiser.architecture.name == "loom_demo"
    assert list(denoiser.parts) == ["denoiser", "text_encoder"]
    assert denoiser.schedule.prediction == "v"
    assert (denoiser.latent_step, denoiser.size_step) == (8, 8)


def test_a_distilled_model_has_a_layer_more(demo_base: Path, tmp_path: Path):
    """Consistency models take the guidance as a further condition, which training does not give."""
    folder = shutil.copytree(demo_base, tmp_path / "distilled")
    settings = json.loads((folder / "unet" / "config.json").read_text()) | {"time_cond_proj_dim": 16}
    (folder / "unet" / "config.json").write_text(json.dumps(settings))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(weights) | {"time_embedding.cond_proj.weight": torch.zeros(64, 16)}, weights, {"format": "pt"})

    assert load(folder).architecture.name == "loom_demo"


def test_every_layer_has_a_place_in_the_architecture(family: tuple[Path, Architecture]):
    denoiser = load(*family)

    for component, module in denoiser.parts.items():
        layers = [path for path, one in module.named_modules() if isinstance(one, (nn.Linear, nn.Conv2d))]
        own = family[1].component(component)
        assert own is not None
        assert {denoiser.path_of(component, path) for path in layers} <= set(own.modules)
    assert denoiser.path_of("denoiser", "down_blocks.9") is None
    assert denoiser.path_of("text_encoder_3", "anything") is None


def test_latents_are_those_of_the_pipelines_vae(family: tuple[Path, Architecture]):
    vae = stock(family[0]).vae

    latents = load(*family).encode_pictures(pixels())

    with torch.no_grad():
        expected = vae.encode(pixels()).latent_dist
    torch.testing.assert_close(latents.mean, expected.mean * vae.config.scaling_factor, rtol=0, atol=0)
    torch.testing.assert_close(latents.std, expected.std * vae.config.scaling_factor, rtol=0, atol=0)


def test_many_pictures_are_encoded_a_few_at_a_time(tiny_sd1: Path, monkeypatch: pytest.MonkeyPatch):
    denoiser = load(tiny_sd1, tiny.TINY_SD1)
    whole = denoiser.encode_pictures(pixels(5))

    monkeypatch.setattr("lora_core.train.diffusers_denoiser.vae.PIXELS_AT_ONCE", 2 * 64 * 64)

    # Convolutions of another batch size may add in another order.
    torch.testing.assert_close(denoiser.encode_pictures(pixels(5)).mean, whole.mean, rtol=1e-5, atol=1e-6)


def test_a_vae_may_shift_and_scale_each_channel(tiny_sd1: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_sd1, tmp_path / "base")
    settings = json.loads((folder / "vae" / "config.json").read_text())
    settings |= {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 4.0, 8.0], "scaling_factor": 0.5}
    (folder / "vae" / "config.json").write_text(json.dumps(settings))
    plain = load(tiny_sd1, tiny.TINY_SD1, vae=str(tiny_sd1)).encode_pictures(pixels()).mean / 0.18215

    shifted = load(folder, tiny.TINY_SD1).encode_pictures(pixels()).mean

    mean, std = (torch.tensor(settings[name]).view(1, 4, 1, 1) for name in ("latents_mean", "latents_std"))
    torch.testing.assert_close(shifted, (plain - mean) * 0.5 / std, rtol=1e-5, atol=1e-6)  # float32


def test_text_is_encoded_as_the_pipeline_does(family: tuple[Path, Architecture]):
    pipeline = stock(family[0])
    sdxl = "text_encoder_2" in pipeline.components
    with torch.no_grad():
        found = pipeline.encode_prompt(
            CAPTIONS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )

    conditions = load(*family).encode_text(CAPTIONS)

    expected = {"text": found[0]} | ({"pooled": found[2]} if sdxl else {})
    assert conditions.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(conditions[name], value, rtol=0, atol=0)


def test_clip_skip_leaves_out_the_last_layers(tiny_sd1: Path, tmp_path: Path):
    """The condition is that of an encoder with a layer less."""
    folder = shutil.copytree(tiny_sd1, tmp_path / "short")
    settings = json.loads((folder / "text_encoder" / "config.json").read_text())
    (folder / "text_encoder" / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 1}))
    short, whole = load(folder, tiny.TINY_SD1), load(tiny_sd1, tiny.TINY_SD1)

    skipped = load(tiny_sd1, tiny.TINY_SD1, clip_skip=1)

    text = skipped.encode_text(CAPTIONS)["text"]
    assert torch.equal(text, short.encode_text(CAPTIONS)["text"])
    assert not torch.equal(text, whole.encode_text(CAPTIONS)["text"])
    assert skipped.text_fingerprint != whole.text_fingerprint
    assert skipped.vae_fingerprint == whole.vae_fingerprint


def test_captions_that_are_cut_off_are_known(tiny_sd1: Path):
    denoiser = load(tiny_sd1, tiny.TINY_SD1)
    fits, long = " ".join(["apple"] * 75), " ".join(["apple"] * 76)

    assert denoiser.too_long([fits, long, ""]) == [long]
    assert denoiser.too_long([]) == []
    text = denoiser.encode_text([fits, long])["text"]
    assert torch.equal(text[0], text[1])


@pytest.mark.parametrize(("folder", "skip"), [("tiny_sd1", 2), ("tiny_sdxl", 1)])
def test_a_layer_has_to_be_left(folder: str, skip: int, request: pytest.FixtureRequest):
    """SDXL leaves out the last one itself."""
    with pytest.raises(ConfigError, match=rf"model\.clip_skip: leaves out {skip} of {skip} layers"):
        load(request.getfixturevalue(folder), FAMILIES[folder], clip_skip=skip)


def test_a_pass_is_the_unets(family: tuple[Path, Architecture]):
    pipeline = stock(family[0])
    denoiser = load(*family)
    conditions = denoiser.encode_text(CAPTIONS)
    more = {}
    if "pooled" in conditions:
        more["added_cond_kwargs"] = {"text_embeds": conditions["pooled"], "time_ids": SIZES}
    timesteps = torch.tensor([3, 900])
    with torch.no_grad():
        expected = pipeline.unet(noise(), timesteps, encoder_hidden_states=conditions["text"], **more).sample

    torch.testing.assert_close(denoiser.predict(noise(), timesteps, conditions, SIZES), expected, rtol=0, atol=0)


def test_sdxl_sees_sizes_and_crops(tiny_sdxl: Path):
    denoiser = load(tiny_sdxl, tiny.TINY_SDXL)
    conditions, timesteps = denoiser.encode_text(CAPTIONS), torch.tensor([3, 900])

    one = denoiser.predict(noise(), timesteps, conditions, SIZES)

    assert not torch.equal(denoiser.predict(noise(), timesteps, conditions, SIZES + 8), one)


def test_a_picture_is_the_pipelines(family: tuple[Path, Architecture]):
    """The stock pipeline with its own text and VAE, the same sampler and the same first noise."""
    pipeline = stock(family[0])
    pipeline.scheduler = library("diffusers").DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing"
    )
    first = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(7))
    settings: dict[str, Any] = {"height": 64, "width": 96, "num_inference_steps": 3, "guidance_scale": 4.0}
    expected = pipeline("a red apple", negative_prompt="blue", latents=first, output_type="pt", **settings).images[0]

    picture = load(*family).sample("a red apple", "blue", seed=7, steps=3, guidance=4.0, width=96, height=64)

    assert picture.shape == (3, 64, 96)
    # Prompt and negative prompt are encoded at once here, one after the other there.
    torch.testing.assert_close(picture, expected, rtol=1e-4, atol=1e-5)


def test_a_picture_follows_from_its_seed(tiny_sd1: Path):
    denoiser = load(tiny_sd1, tiny.TINY_SD1)
    pictures = [
        denoiser.sample("an apple", "", seed=seed, steps=2, guidance=2.0, width=64, height=64) for seed in (1, 1, 2)
    ]

    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


def test_a_picture_shows_the_adapter(tiny_sd1: Path):
    denoiser = load(tiny_sd1, tiny.TINY_SD1)
    settings: dict[str, Any] = {"seed": 1, "steps": 2, "guidance": 2.0, "width": 64, "height": 64}
    base = denoiser.sample("an apple", "", **settings)

    attach(denoiser.parts["denoiser"])

    assert not torch.equal(denoiser.sample("an apple", "", **settings), base)


def test_a_picture_without_dropout_leaves_the_mode_as_it_was(tiny_sd1: Path):
    denoiser = load(tiny_sd1, tiny.TINY_SD1)
    denoiser.parts["denoiser"].append_dropout = nn.Dropout()  # pyright: ignore[reportArgumentType]
    denoiser.set_mode("train")
    still = denoiser.parts["text_encoder"].eval()

    denoiser.sample("an apple", "", seed=1, steps=1, guidance=1.0, width=64, height=64)

    assert all(module.training for module in denoiser.parts["denoiser"].modules())
    assert not any(module.training for module in still.modules())


def test_a_picture_has_sides_that_the_vae_can_make(tiny_sd1: Path):
    with pytest.raises(ConfigError, match="60x64 pixels: width and height must be multiples of 8"):
        load(tiny_sd1, tiny.TINY_SD1).sample("", "", seed=1, steps=1, guidance=1.0, width=60, height=64)


def test_flow_is_sampled_as_well(tiny_sdxl: Path):
    denoiser = load(tiny_sdxl, tiny.TINY_SDXL, prediction="flow")

    picture = denoiser.sample("an apple", "", seed=1, steps=3, guidance=2.0, width=64, height=64)

    assert denoiser.schedule.prediction == "flow"
    assert picture.isfinite().all()


def test_modes(tiny_sd1: Path):
    denoiser = load(tiny_sd1, tiny.TINY_SD1)

    denoiser.set_mode("train")
    assert all(part.training for part in denoiser.parts.values())
    denoiser.set_mode("encode")
    assert not any(part.training for part in denoiser.parts.values())
    with pytest.raises(ValueError, match="expected 'encode' or 'train'"):
        denoiser.set_mode("rest")


def test_fingerprints_follow_the_weights_and_not_the_place(tiny_sd1: Path, tiny_sd2: Path, tmp_path: Path):
    copied = load(shutil.copytree(tiny_sd1, tmp_path / "elsewhere"), tiny.TINY_SD1)
    one, two = load(tiny_sd1, tiny.TINY_SD1), load(tiny_sd2, tiny.TINY_SD2)

    assert (copied.vae_fingerprint, copied.text_fingerprint) == (one.vae_fingerprint, one.text_fingerprint)
    assert two.text_fingerprint != one.text_fingerprint  # the same weights with another activation
    assert load(tiny_sd1, tiny.TINY_SD1, dtype="bf16").text_fingerprint != one.text_fingerprint


@pytest.mark.parametrize("options", [{"channels_last": True}, {"attention": "sliced"}, {"attention": "sdpa"}])
def test_how_it_is_computed_changes_nothing(options: dict[str, Any], family: tuple[Path, Architecture]):
    expected = predict(load(*family))

    # float32 sums in another order
    torch.testing.assert_close(predict(load(*family, **options)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("component", ["denoiser", "text_encoder"])
def test_checkpointing_gives_the_same_gradients(component: str, family: tuple[Path, Architecture]):
    targets = ("to_q", "to_v") if component == "denoiser" else ("q_proj", "v_proj")
    found: list[Tensor] = []
    for checkpointing in (False, True):
        denoiser = load(*family, checkpointing=checkpointing)
        parameters = attach(denoiser.parts[component], targets)
        if component == "text_encoder" and len(denoiser.encoders) > 1:
            parameters = parameters[: len(parameters) // 2]  # SDXL does not use its last layer
        denoiser.set_mode("train")
        predict(denoiser).square().mean().backward()
        found.append(gradients(parameters))

    assert found[0].abs().max() > 0
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-7)  # float32


def test_text_has_gradients_only_where_it_is_trained(tiny_sd1: Path):
    denoiser = load(tiny_sd1, tiny.TINY_SD1)

    assert not denoiser.encode_text(CAPTIONS)["text"].requires_grad
    attach(denoiser.parts["text_encoder"], ("q_proj",))
    assert denoiser.encode_text(CAPTIONS)["text"].requires_grad
    with torch.no_grad():
        assert not denoiser.encode_text(CAPTIONS)["text"].requires_grad


def test_weights_in_half_precision_take_adapters_in_full(family: tuple[Path, Architecture]):
    denoiser = load(*family, dtype="bf16")
    parameters = attach(denoiser.parts["denoiser"], ("to_q", "conv1", "conv_in"))

    prediction = predict(denoiser)
    prediction.square().mean().backward()

    assert prediction.dtype == torch.float32
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert gradients(parameters).isfinite().all()
    assert denoiser.encode_pictures(pixels()).mean.dtype == torch.float32


def test_text_and_latents_keep_their_precision_inside_autocast(tiny_sdxl: Path):
    """Those in caches were made outside."""
    denoiser = load(tiny_sdxl, tiny.TINY_SDXL)
    text, latents = denoiser.encode_text(CAPTIONS), denoiser.encode_pictures(pixels())

    with torch.autocast("cpu", torch.bfloat16):
        again = denoiser.encode_text(CAPTIONS)
        assert all(torch.equal(again[name], value) for name, value in text.items())
        assert torch.equal(denoiser.encode_pictures(pixels()).mean, latents.mean)
        assert predict(denoiser).isfinite().all()


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_quantised_base_can_be_trained_on(kind: str, family: tuple[Path, Architecture]):
    """The gradients are those of the full weights up to the rounding: 1 in 256 of a row's largest, 1 in 16 of each."""
    found: dict[str, Tensor] = {}
    for quantise in ("none", kind):
        denoiser = load(*family, quantise=quantise)
        parameters = attach(denoiser.parts["denoiser"], ("to_q", "to_v", "net.2"))
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        loss = predict(denoiser).square().mean()
        loss.backward()
        found[quantise] = gradients(parameters)
        optimizer.step()
        assert predict(denoiser).square().mean() < loss

    error = (found[kind] - found["none"]).norm() / found["none"].norm()
    assert 0 < error < (0.05 if kind == "int8" else 0.15)
