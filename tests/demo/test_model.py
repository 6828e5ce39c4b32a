"""The committed pipeline folder and LoRAs: they load, they are small, strength 0 is the base."""

from __future__ import annotations

import pytest
import torch

from demo.pipeline import LATENT_CHANNELS, LATENT_SIZE, MODEL, Demo, load_demo
from demo.train_loras import NAMES, lora_file, settings


@pytest.fixture(scope="module")
def demo() -> Demo:
    return load_demo()


def predict(demo: Demo) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=generator)
    with torch.no_grad():
        return demo.unet(noisy, 500, demo.context(["red heart", "pizza"])).sample


def test_size() -> None:
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    for name in NAMES:
        assert lora_file(name).stat().st_size < 2_000_000


def test_loads_as_a_diffusers_pipeline(demo: Demo) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    embeds = pipeline.encode_prompt("red heart", "cpu", 1, False)[0]
    torch.testing.assert_close(embeds.float(), demo.context(["red heart"]), atol=1e-4, rtol=1e-4)


def test_codec_round_trip(demo: Demo) -> None:
    from demo.dataset import FLAT, load_images, read_items

    images = load_images(read_items(FLAT)[::40])
    latents = demo.encode(images)
    assert latents.shape[1:] == (LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    assert (demo.decode(latents) - images).abs().mean() < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_lora_maps_whole_and_strength_zero_is_the_base(demo: Demo, name: str) -> None:
    from demo.apply import stack_of, with_stack
    from lora_core import load_adapter

    path = lora_file(name)
    report = load_adapter(path).report
    assert report.architecture == "loom_demo"
    assert report.complete
    base = predict(demo)
    assert torch.equal(predict(with_stack(demo, stack_of([(path, 0.0)]))), base)
    assert not torch.allclose(predict(with_stack(demo, stack_of([(path, 1.0)]))), base, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_what_the_settings_in_the_repository_make(name: str) -> None:
    from safetensors import safe_open

    with safe_open(lora_file(name), "pt") as file:
        metadata = file.metadata()
    config = settings(name)
    assert metadata["modelspec.title"] == config.output.title
    assert metadata["ss_steps"] == str(config.run.steps)
    assert "red heart" in metadata["ss_tag_frequency"] or "pizza" in metadata["ss_tag_frequency"]
