"""A checkpoint of SD 1.5's real size, of random numbers, from its single file without any pipeline's settings."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from attached import attach, gradients
from host_harness.models import sd15_checkpoint
from lora_core.train.config import ModelSection
from lora_core.train.diffusers_denoiser import DiffusersDenoiser


@pytest.mark.slow
def test_a_checkpoint_of_sd_15(keys: Path, demo_base: Path, tmp_path: Path):
    """In bf16, which is 2 GB; the tokenizer is the demo's, since CLIP's is not part of this repository."""
    shutil.copytree(demo_base / "tokenizer", tmp_path / "tokenizer")

    section = ModelSection(base=str(sd15_checkpoint(keys)), pipeline=str(tmp_path), dtype="bf16")
    denoiser = DiffusersDenoiser.load(section, checkpointing=True)

    assert denoiser.architecture.name == "sd15"
    assert denoiser.schedule.prediction == "epsilon"
    assert sum(p.numel() for p in denoiser.parts["denoiser"].parameters()) == 859_520_964
    parameters = attach(denoiser.parts["denoiser"], ("to_q", "to_k", "to_v", "to_out.0"))
    assert sum(p.numel() for p in parameters) == 797_184
    text = denoiser.encode_text(["a red apple"])
    assert text["text"].shape == (1, 77, 768)
    latents = denoiser.encode_pictures(torch.zeros(1, 3, 64, 64)).mean
    denoiser.set_mode("train")
    denoiser.predict(latents, torch.tensor([500]), text, torch.zeros(1, 6)).square().mean().backward()
    assert gradients(parameters).isfinite().all()
