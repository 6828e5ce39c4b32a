"""One pass: what its losses are made of, worked out by hand, and that it never waits for the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import networks
from host_waits import NoHostWaits
from lora_core.train.config import ModelSection, NetworkSection, ObjectiveSection, RunSection, TextEncoderSection
from lora_core.train.data import Batch, TrainingData
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.forward import Forward
from lora_core.train.network import Network
from lora_core.train.processes import Processes
from lora_core.train.seeds import fraction, generator
from painted import Told, open_data, paint_some
from tiny import TINY_SD1

SEED, STEP = 5, 7


@dataclass
class Run:
    """A tiny model with an adapter, and four pictures."""

    denoiser: DiffusersDenoiser
    network: Network
    data: TrainingData

    def forward(self, *, precision: str = "fp32", **objective: Any) -> Forward:
        processes = Processes(RunSection.model_validate({"device": "cpu", "precision": precision}))
        return Forward(self.denoiser, ObjectiveSection(**objective), self.data.rules, processes, SEED, 4)

    def batch(self, rows: Sequence[int] = (0, 1, 2, 3)) -> Batch:
        samples = self.data.samples(STEP, 4)
        return self.data.batch(STEP, [samples[row] for row in rows], self.denoiser)


@pytest.fixture(scope="module")
def run(tiny_sd1: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    denoiser = DiffusersDenoiser.load(ModelSection(base=str(tiny_sd1)), architecture=TINY_SD1)
    network = Network.attach(denoiser, NetworkSection(rank=4), TextEncoderSection(train=True), 1, 1e-3)
    networks.move(network)
    data = open_data(paint_some(tmp_path_factory.mktemp("pictures"), 4), seed=SEED)
    data.prepare(denoiser, None, Told(), text=True)
    yield Run(denoiser, network, data)
    data.close()


def by_hand(run: Run, batch: Batch, row: int) -> tuple[Tensor, int]:
    """Plain squared error of one picture, and its timestep."""
    place = batch.samples[row].position
    assert batch.std is not None
    assert batch.conditions is not None
    shape = batch.mean[row].shape
    latents = batch.mean[row] + batch.std[row] * torch.randn(shape, generator=generator(SEED, "latents", STEP, place))
    noise = torch.randn(shape, generator=generator(SEED, "noise", STEP, place))
    timestep = int(1000 * fraction(SEED, "timestep", STEP, place))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = float((1 - betas).cumprod(0)[timestep])
    noisy = abar**0.5 * latents + (1 - abar) ** 0.5 * noise
    prediction: Tensor = run.denoiser.parts["denoiser"](
        noisy[None], timestep, encoder_hidden_states=batch.conditions["text"][row : row + 1], return_dict=False
    )[0]
    return (prediction[0] - noise).square().mean(), timestep


@pytest.mark.parametrize("weighting", ["none", "min_snr"])
def test_losses_are_those_worked_out_by_hand(run: Run, weighting: str):
    batch = run.batch()
    with torch.no_grad():
        losses = run.forward(weighting=weighting, gamma=2.0).losses(batch, STEP)
        plain = [by_hand(run, batch, row) for row in range(4)]

    snr = run.denoiser.schedule.snr(torch.tensor([timestep for _, timestep in plain]))
    weights = snr.clamp(max=2.0) / snr if weighting == "min_snr" else torch.ones(4)
    assert (losses.shape, losses.dtype) == ((4,), torch.float32)
    # The table of the schedule is in float32, and four pictures go through the model together.
    torch.testing.assert_close(losses, torch.stack([loss for loss, _ in plain]) * weights, rtol=1e-4, atol=0)


def test_a_pass_does_not_wait_for_the_device(run: Run):
    batch, forward = run.batch(), run.forward(weighting="min_snr", noise_offset=0.1, timesteps="stratified")
    forward.losses(batch, STEP)  # what is made once

    with NoHostWaits():
        forward.losses(batch, STEP).mean().backward()


@pytest.mark.parametrize("splits", [[(0, 1), (2, 3)], [(0,), (1,), (2,), (3,)], [(3, 1), (2, 0)]])
def test_the_split_into_passes_changes_no_loss(run: Run, splits: list[tuple[int, ...]]):
    forward = run.forward(timesteps="stratified")
    with torch.no_grad():
        whole = forward.losses(run.batch(), STEP)
        for rows in splits:
            # Rounding only: products of more rows add up in another order.
            torch.testing.assert_close(forward.losses(run.batch(rows), STEP), whole[list(rows)], rtol=1e-5, atol=0)


def test_a_weight_of_two_counts_double(run: Run):
    batch, forward = run.batch(), run.forward()
    heavier = replace(batch, weights=torch.tensor([1.0, 2.0, 1.0, 0.0]))
    with torch.no_grad():
        losses = forward.losses(batch, STEP)
        assert torch.equal(forward.losses(heavier, STEP), losses * heavier.weights)


def test_places_whose_mask_is_zero_do_not_count(run: Run):
    batch, forward = run.batch(), run.forward()
    mask = torch.zeros(4, 1, *batch.mean.shape[2:])
    mask[:, :, :4] = 1.0
    with torch.no_grad():
        upper = forward.losses(replace(batch, mask=mask), STEP)
        lower = forward.losses(replace(batch, mask=1 - mask), STEP)
        # Means over the two halves.
        torch.testing.assert_close((upper + lower) / 2, forward.losses(batch, STEP), rtol=1e-5, atol=0)


def test_cached_conditions_train_no_text_encoder_and_captions_do(run: Run):
    def gradients(batch: Batch) -> dict[str, bool]:
        for parameter in run.network.parameters():
            parameter.grad = None
        run.forward().losses(batch, STEP).mean().backward()
        return {group.name: any(p.grad is not None for p in group.parameters) for group in run.network.groups()}

    assert gradients(run.batch()) == {"denoiser": True, "text_encoder": False}
    assert gradients(replace(run.batch(), conditions=None)) == {"denoiser": True, "text_encoder": True}


def test_bf16_computes_in_bf16_and_counts_in_fp32(run: Run):
    with torch.no_grad():
        exact = run.forward().losses(run.batch(), STEP)
        rounded = run.forward(precision="bf16").losses(run.batch(), STEP)

    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    # 8 bits a number, some thirty layers.
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0)
