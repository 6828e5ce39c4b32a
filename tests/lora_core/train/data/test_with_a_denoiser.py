"""Data through a real denoiser: what the cache gives is what the denoiser made."""

from __future__ import annotations

from pathlib import Path

import torch

from lora_core.train.config import ModelSection
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from painted import Told, open_data, paint_some
from tiny import TINY_SDXL


def test_sdxl_gets_both_conditions_and_the_sizes(tiny_sdxl: Path, tmp_path: Path):
    paint_some(tmp_path / "data", 3, (96, 64))
    denoiser = DiffusersDenoiser.load(ModelSection(base=str(tiny_sdxl)), device="cpu", architecture=TINY_SDXL)
    for _ in range(2):  # what is made, and what is read back
        data = open_data(tmp_path / "data", seed=1)
        assert data.prepare(denoiser, tmp_path / "cache", Told(), text=True)
        batch = data.batch(0, data.samples(0, 2), denoiser)

        assert batch.conditions is not None
        for name, tensor in denoiser.encode_text(batch.captions).items():
            # Two captions at once, or one after the other: the order of adding differs.
            torch.testing.assert_close(batch.conditions[name], tensor, rtol=1e-4, atol=1e-5)
        assert {"text", "pooled"} == set(batch.conditions)
        assert batch.sizes.tolist() == [[64, 96, 0, 16, 64, 64]] * 2
        timesteps = torch.tensor([10, 900])
        prediction = denoiser.predict(batch.mean, timesteps, batch.conditions, batch.sizes)
        assert prediction.shape == batch.mean.shape


def test_the_demo_base(demo_base: Path, repository: Path, tmp_path: Path):
    denoiser = DiffusersDenoiser.load(ModelSection(base=str(demo_base)), device="cpu")
    folder = repository / "demo" / "data" / "flat"
    data = open_data(folder, select={"split": "heldout", "group": "Activities"})

    assert data.prepare(denoiser, tmp_path, Told(), text=True)
    batch = data.batch(0, data.samples(0, data.epoch_size), denoiser)

    expected = [picture.captions[0] for picture in data.pictures for _ in range(picture.repeats)]
    assert sorted(batch.captions) == sorted(expected)
    assert batch.std is not None
    # Latents are scaled to the size that the noise has.
    assert 0.5 < batch.mean.std() < 2
